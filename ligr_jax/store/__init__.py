"""Object stores (s3://, gs://): every URI has a directory of the local cache as its working copy.

    s3://BUCKET/KEY  <->  CACHE/mirror/s3/BUCKET/KEY

The package reads and writes working copies as ordinary local paths, so memory maps, locks and
renames work. `stage` makes a working copy equal to the store before it is read, `publish` uploads
what was written, and `lease` gives a directory of the store one writer at a time. For every other
path these functions do nothing.

obstore is the only library that talks to stores: it has atomic creation and compare-and-swap for
S3 and GCS, retries, and no dependencies. It needs `pip install 'ligr-jax[cloud]'`.
"""
