"""Which paths a command can read and write: those of file systems that are mounted here."""

import re
from collections.abc import Iterable

from ligr_jax.errors import UsageError

# `pathlib` turns s3://bucket into s3:/bucket, which would name a directory `s3:` right here.
_URL = re.compile(
    r"^([a-z][a-z0-9+.-]*://|"
    r"(s3|s3a|s3n|r2|gs|gcs|gcsfs|az|adl|abfs|abfss|wasb|wasbs|oss|oci|cos|obs|hdfs|viewfs|dbfs|hf|"
    r"http|https|ftp|sftp|ssh|file|memory|local|smb|nfs):/)",
    re.IGNORECASE,
)


def require_local(path: object) -> None:
    """Raise UsageError for a URL in place of a path."""
    if _URL.match(str(path).strip()):
        raise UsageError(
            f"{path}: object stores and other URLs are not supported yet; mount the store and give "
            "the path of the mount, or copy the files to a local disk"
        )


def require_local_words(words: Iterable[str]) -> None:
    """The same for all words of a command line, and for the values of `name=value` words."""
    for word in words:
        for part in (word, word.partition("=")[2]):
            for path in part.split(","):
                require_local(path)
