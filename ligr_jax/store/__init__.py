"""Object stores (s3://, gs://): every URI has a directory of the local cache as its working copy.

    s3://BUCKET/KEY  <->  CACHE/mirror/s3/BUCKET/KEY

The package reads and writes working copies as ordinary local paths, so memory maps, locks and
renames work. `stage` makes a working copy equal to the store before it is read, `publish` uploads
what was written, and `lease` gives a directory of the store one writer at a time. For every other
path these functions do nothing.

obstore is the only library that talks to stores: it has atomic creation and compare-and-swap for
S3 and GCS, retries, and no dependencies. It needs `pip install 'ligr-jax[cloud]'`.
"""

from typing import TYPE_CHECKING

from ligr_jax.lazy import lazy_exports

if TYPE_CHECKING:
    from ligr_jax.store.mirror import local_path as local_path
    from ligr_jax.store.mirror import uri_of as uri_of
else:
    __all__, __getattr__, __dir__ = lazy_exports(
        __name__, {"local_path": "mirror", "uri_of": "mirror"}
    )
