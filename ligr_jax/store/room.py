"""Room in the cache: working copies that were not used for the longest time are removed.

This happens before files are fetched and before a run is written, if the cache would exceed
LIGR_CACHE_GB (no bound by default), or the disk has no room otherwise. A file is removed only if it
is equal to its object, so it can be fetched again. Kept are directories that a process has locked
to write to them, data that a process has opened, and everything that was used in the last hour.
"""

import contextlib
import fcntl
import logging
import os
import shutil
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from ligr_jax.errors import file_errors
from ligr_jax.store.mirror import cache_root, record_path, uri_of
from ligr_jax.store.objects import setting_of
from ligr_jax.store.versions import forget_version, is_published

_log = logging.getLogger(__name__)

CACHE_GB = "LIGR_CACHE_GB"  # environment variable: bound of the cache in GB
SPARE = 2**28  # bytes that stay free on the disk
_LOCK = ".lock"  # the file that a process locks while it writes to a directory
_RECENT_S = 3600.0
_held: dict[Path, int] = {}  # locks of directories that this process has opened
_one_at_a_time = threading.Lock()


@contextlib.contextmanager
def staging(directory: Path) -> Iterator[None]:
    """Wait until no other process of this host stages or removes a directory, and lock it.

    The time of the lock file is that of the last use.
    """
    record = record_path("locks", directory / ".staging")
    with file_errors("lock", record):
        record.parent.mkdir(parents=True, exist_ok=True)
        lock = record.open("ab")
        os.utime(record)
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def hold(directory: Path) -> None:
    """Keep the working copy of a directory until this process ends."""
    if uri_of(directory) is None or directory in _held:
        return
    path = record_path("locks", directory / ".opened")
    path.parent.mkdir(parents=True, exist_ok=True)
    _held[directory] = os.open(path, os.O_CREAT | os.O_RDWR)
    fcntl.flock(_held[directory], fcntl.LOCK_SH)


def is_written(directory: Path) -> bool:
    """Return whether a process of this host has locked the directory to write to it."""
    try:
        with (directory / _LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def make_room(size: int) -> None:
    """Remove working copies until so many bytes fit, or none can be removed.

    Args:
        size: Bytes that will be written.
    """
    with _one_at_a_time:
        excess = _excess(size)
        if excess <= 0:
            return
        freed = 0
        for path in _killed_transfers():
            freed += _size(path)
            path.unlink(missing_ok=True)
        for record in _by_last_use():
            if freed >= excess:
                break
            freed += _remove(record)
        if freed:
            _log.info(f"removed {freed / 1e9:.2f} GB from {cache_root()}, the least recently used")


def _excess(size: int) -> float:
    """Return how many bytes must be removed before `size` bytes are written."""
    root = cache_root()
    root.mkdir(parents=True, exist_ok=True)
    excess = size + SPARE - shutil.disk_usage(root).free if size else 0.0
    bound = 1e9 * setting_of(CACHE_GB, float("inf"), "GB")
    if bound == float("inf"):
        return excess
    cached = sum(_size(path) for tree in ("mirror", "partial") for path in (root / tree).rglob("*"))
    return max(excess, cached + size - bound)


def _size(path: Path) -> int:
    """Return the bytes of a file; 0 for a directory, or if another process has removed the file."""
    with contextlib.suppress(FileNotFoundError):
        status = path.stat()
        return status.st_size if stat.S_ISREG(status.st_mode) else 0
    return 0


def _killed_transfers() -> Iterator[Path]:
    for path in (cache_root() / "partial").rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # the transfer is complete now
            if path.is_file() and time.time() - path.stat().st_mtime > _RECENT_S:
                yield path


def _by_last_use() -> list[Path]:
    """Return the records of directories that were not used recently, the oldest first."""
    used = {r: r.stat().st_mtime for r in (cache_root() / "locks").rglob(".staging")}
    old = [record for record, when in used.items() if time.time() - when > _RECENT_S]
    return sorted(old, key=lambda record: used[record])


def _remove(record: Path) -> int:
    """Remove the published files of a directory unless it is in use; return their bytes."""
    locks, mirror = cache_root() / "locks", cache_root() / "mirror"
    directory = mirror / record.parent.relative_to(locks)
    owners = [directory, *(p for p in directory.parents if p.is_relative_to(mirror))]
    freed = 0
    with contextlib.ExitStack() as locked:
        try:
            for path in (record, record.with_name(".opened")):
                fcntl.flock(locked.enter_context(path.open("ab")), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
        if any(is_written(owner) for owner in owners):
            return 0
        for folder, folders, names in os.walk(directory):
            # Directories that were used apart from this one have records of their own.
            records = {f: record_path("locks", Path(folder, f, ".staging")) for f in folders}
            folders[:] = [f for f in folders if not records[f].exists()]
            for path in (Path(folder, name) for name in names):
                if is_published(path):
                    freed += _size(path)
                    path.unlink()
                    forget_version(path)
    return freed
