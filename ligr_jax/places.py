"""Places that commands can read and write: local paths and URIs of object stores (s3://, gs://)."""

import re
from collections.abc import Iterable

from ligr_jax.errors import UsageError
from ligr_jax.store.mirror import is_uri, local_path

# `pathlib` turns s3://bucket into s3:/bucket, which names a directory `s3:`.
_URL = re.compile(
    r"^([a-z][a-z0-9+.-]*://|"
    r"(s3|s3a|s3n|r2|gs|gcs|gcsfs|az|adl|abfs|abfss|wasb|wasbs|oss|oci|cos|obs|hdfs|viewfs|dbfs|hf|"
    r"http|https|ftp|sftp|ssh|file|memory|local|smb|nfs):/)",
    re.IGNORECASE,
)
# Commands whose files are local: generators and tools that end before a sweep begins.
_LOCAL_ONLY = ("world", "download", "sid", "dashboard")


def require_local(path: object) -> None:
    """Check that a path is not a URL.

    Raises:
        UsageError: The path is a URL, e.g. s3://bucket/data.
    """
    if _URL.match(str(path).strip()):
        raise UsageError(
            f"{path}: URLs are not supported here; s3:// and gs:// are supported for prepared "
            "data, runs, sweeps, reports and exports; otherwise mount the store, or copy the files"
        )


def require_supported(path: str) -> None:
    """Check that a path is local or a URI of a supported store.

    Raises:
        UsageError: It is another URL.
    """
    if not is_uri(path):
        require_local(path)


def local_words(command: str, words: Iterable[str]) -> list[str]:
    """Return the words of a command line with the working copies of URIs in place of the URIs.

    Values of configuration fields (`name=value`) are not changed.

    Args:
        command: Name of the command.
        words: The words after it.

    Raises:
        UsageError: A word or a value is a URL that the command does not support.
    """
    check = require_local if command in _LOCAL_ONLY else require_supported
    result = []
    for word in words:
        option, equals, value = word.partition("=")
        for place in (word, *value.split(",")):
            check(place)
        if is_uri(word):
            word = str(local_path(word))
        elif equals and option.startswith("-") and is_uri(value):
            word = f"{option}={local_path(value)}"
        result.append(word)
    return result
