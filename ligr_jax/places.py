"""Paths that commands can read and write: those of mounted file systems, not URLs."""

import re
from collections.abc import Iterable

from ligr_jax.errors import UsageError

# `pathlib` turns s3://bucket into s3:/bucket, which names a directory `s3:`.
_URL = re.compile(
    r"^([a-z][a-z0-9+.-]*://|"
    r"(s3|s3a|s3n|r2|gs|gcs|gcsfs|az|adl|abfs|abfss|wasb|wasbs|oss|oci|cos|obs|hdfs|viewfs|dbfs|hf|"
    r"http|https|ftp|sftp|ssh|file|memory|local|smb|nfs):/)",
    re.IGNORECASE,
)


def require_local(path: object) -> None:
    """Check that a path is not a URL.

    Raises:
        UsageError: The path is a URL, e.g. s3://bucket/data.
    """
    if _URL.match(str(path).strip()):
        raise UsageError(
            f"{path}: object stores and other URLs are not supported yet; mount the store and give "
            "the path of the mount, or copy the files to a local disk"
        )


def require_local_words(words: Iterable[str]) -> None:
    """Check all words of a command line, and the values of `name=value` words.

    Raises:
        UsageError: A word or a value is a URL.
    """
    for word in words:
        for part in (word, word.partition("=")[2]):
            for path in part.split(","):
                require_local(path)
