"""Files that are complete or absent, also after a kill or a crash of the host.

Errors of the operating system name the file and the operation (`ligr_jax.errors.FileError`).
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from ligr_jax.errors import LigrError, file_errors
from ligr_jax.places import require_local


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary name to write to, renamed to `path` at the end, or removed on an error.

    Readers see the old file or the new one. The content is on disk before the rename, and the
    rename before the block ends, so that a crash of the host leaves no empty file.
    """
    # The name is unique: two processes, or two threads, may write the same file.
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    with file_errors("write", path):
        try:
            yield part
            sync(part)
            os.replace(part, path)
            sync(path.parent)
        finally:
            with contextlib.suppress(OSError):  # the error of the block is the one to report
                part.unlink()


def write_atomically(path: Path, text: str) -> None:
    """Write a text, as UTF-8, to a file that is complete or absent; see `atomic_path`."""
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def make_directory(path: Path) -> None:
    """Make a directory and its parents where they are absent."""
    require_local(path)
    with file_errors("make the directory", path):
        path.mkdir(parents=True, exist_ok=True)


def read_text(path: Path) -> str:
    """Read a text in UTF-8, whatever the locale.

    Raises:
        FileError: the file cannot be read.
        LigrError: it is not UTF-8.
    """
    with file_errors("read", path):
        raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as e:
        raise LigrError(f"{path}: not UTF-8 at byte {e.start}; convert it to UTF-8") from e


def version_of(path: Path) -> tuple[int, int] | None:
    """Return what changes when a file is replaced: inode and time in ns; None if it is absent.

    A directory whose index is removed first and written last, by whoever replaces its files, can be
    read without a lock: files read between two equal versions of the index belong together.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def sync(path: Path) -> None:
    """Return when a file's content, or a directory's list of names, is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
