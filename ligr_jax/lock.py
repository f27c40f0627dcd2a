"""Locks of directories: one process writes to a directory at a time.

The lock is `flock` on DIRECTORY/.lock. The operating system releases it when the process ends, also
after SIGKILL. The file contains the host and the process that have the lock.
"""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ligr_jax.atomic import make_directory
from ligr_jax.errors import LigrError, file_errors
from ligr_jax.exit_status import BUSY
from ligr_jax.store.lease import acquire, is_leased, lease_owner

LOCK = ".lock"
_AGAIN_S = 0.5  # pause between two attempts to lock a directory of an object store


class Busy(LigrError, RuntimeError):
    """Another process is writing to the directory."""

    exit_status = BUSY


@contextlib.contextmanager
def exclusive(directory: Path, doing: str, keep: bool = False, name: str = LOCK) -> Iterator[None]:
    """Lock a directory during the block; the directory is created if it is absent.

    Args:
        directory: Directory to lock.
        doing: What this process does, for the message of others, e.g. "is training this run".
        keep: Whether the lock file stays after the block.
        name: Name of the lock file. A name other than `LOCK` locks a single file of the directory.

    Raises:
        Busy: Another process has the lock.
        FileError: The directory cannot be written, or its file system has no locks.
    """
    make_directory(directory)
    path = directory / name
    while True:
        with file_errors("lock", path), contextlib.ExitStack() as opened:
            lock = opened.enter_context(path.open("a+", encoding="utf-8"))  # truncated below
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as e:
                raise Busy(
                    f"{directory}: another process {doing} ({lock_owner(directory, name)})"
                ) from e
            if not _is_at(lock, path):
                continue  # the process that had the lock has removed the file meanwhile
            lock.truncate(0)
            lock.write(f"host {socket.gethostname()}, process {os.getpid()}\n")
            lock.flush()
            owned = opened.pop_all()
        break
    with owned:
        try:
            with _leased(path, doing):
                yield
        finally:
            if not keep:
                with contextlib.suppress(OSError):
                    path.unlink()


@contextlib.contextmanager
def when_free(directory: Path) -> Iterator[None]:
    """Lock a directory during the block, after other processes have released it.

    Raises:
        FileError: The directory cannot be written.
    """
    path = directory / LOCK
    with file_errors("lock", path):
        lock = path.open("a", encoding="utf-8")
    with lock, contextlib.ExitStack() as leased:
        fcntl.flock(lock, fcntl.LOCK_EX)
        while True:
            with contextlib.suppress(Busy):
                leased.enter_context(_leased(path, "is writing there"))
                break
            time.sleep(_AGAIN_S)
        yield


@contextlib.contextmanager
def _leased(path: Path, doing: str) -> Iterator[None]:
    """Have the lease of a directory of an object store, which has one owner on all hosts."""
    lease, other = acquire(path)
    if other:
        raise Busy(f"{path.parent}: another process {doing} ({other})")
    try:
        yield
    finally:
        if lease:
            lease.release()


def is_locked(directory: Path) -> bool:
    """Return whether a process has locked the directory. Permission to read is enough.

    A directory of an object store may be locked by a process on another host.
    """
    try:
        with (directory / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        pass
    except BlockingIOError:
        return True
    return is_leased(directory / LOCK)


def lock_owner(directory: Path, name: str = LOCK) -> str:
    """Return host and process of the last owner of a lock, as the message of `Busy` has them."""
    leased = lease_owner(directory / name)
    if leased:
        return leased
    try:
        text = (directory / name).read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        text = ""
    return text or "its host and process are not known"


def _is_at(lock: IO[str], path: Path) -> bool:
    """Return whether `path` still names the open file."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except FileNotFoundError:
        return False
