"""Which version of its object a file of a working copy has: one small file in the cache each."""

import os
from pathlib import Path

from ligr_jax.store.mirror import record_path
from ligr_jax.store.objects import StoredObject

_KIND = "versions"


def record_version(path: Path, version: str, source: Path | None = None) -> None:
    """Record that a file and an object are equal.

    Args:
        path: The file in the working copy.
        version: Version of the object.
        source: File that will be renamed to `path`; default: `path`.
    """
    record = record_path(_KIND, path)
    record.parent.mkdir(parents=True, exist_ok=True)
    part = record.with_name(f"{record.name}.{os.getpid()}")
    part.write_text(_line(source or path, version), encoding="utf-8")
    os.replace(part, record)


def is_current(path: Path, stored: StoredObject) -> bool:
    """Return whether a file has the content of an object and was not changed since."""
    try:
        recorded = record_path(_KIND, path).read_text(encoding="utf-8")
        return path.stat().st_size == stored.size and recorded == _line(path, stored.version)
    except OSError:
        return False


def is_published(path: Path) -> bool:
    """Return whether a file was not changed since it was equal to its object."""
    try:
        recorded = record_path(_KIND, path).read_text(encoding="utf-8")
        return recorded == _line(path, recorded.rpartition(" ")[0])
    except OSError:
        return False


def forget_version(path: Path) -> None:
    """Remove the record of a file."""
    record_path(_KIND, path).unlink(missing_ok=True)


def _line(path: Path, version: str) -> str:
    return f"{version} {path.stat().st_mtime_ns}\n"
