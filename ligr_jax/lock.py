"""One writer of a directory at a time.

The lock is `flock` on DIRECTORY/.lock, which the operating system frees when its process ends, even
by SIGKILL. The file says which host and process hold it.
"""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ligr_jax.atomic import make_directory
from ligr_jax.errors import LigrError, file_errors
from ligr_jax.exit_status import BUSY

LOCK = ".lock"


class Busy(LigrError, RuntimeError):
    """Another process is writing to the directory."""

    exit_status = BUSY


@contextlib.contextmanager
def exclusive(directory: Path, doing: str, keep: bool = False, name: str = LOCK) -> Iterator[None]:
    """Hold the directory, made where it is absent, for this process.

    Args:
        doing: what the holder does, e.g. "is training this run".
        keep: leave the file of the lock behind.
        name: of the lock; another one than `LOCK` locks a single file of the directory.

    Raises:
        Busy: another process holds it.
        FileError: the directory cannot be written, or its file system has no locks.
    """
    make_directory(directory)
    path = directory / name
    while True:
        with file_errors("lock", path), contextlib.ExitStack() as opened:
            lock = opened.enter_context(path.open("a+", encoding="utf-8"))  # emptied when held
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as e:
                raise Busy(f"{directory}: another process {doing} ({_owner(path)})") from e
            if not _is_at(lock, path):
                continue  # its holder has removed it in the meantime
            lock.truncate(0)
            lock.write(f"host {socket.gethostname()}, process {os.getpid()}\n")
            lock.flush()
            owned = opened.pop_all()
        break
    with owned:
        try:
            yield
        finally:
            if not keep:
                with contextlib.suppress(OSError):
                    path.unlink()


def is_locked(directory: Path) -> bool:
    """Whether a process holds the directory now; needs no permission to write."""
    try:
        with (directory / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _owner(path: Path) -> str:
    """What the holder of the lock wrote; an earlier release wrote nothing."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        text = ""
    return text or "its host and process are not known"


def _is_at(lock: IO[str], path: Path) -> bool:
    """Whether `path` still names the open file."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except FileNotFoundError:
        return False
