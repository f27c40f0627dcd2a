"""Files that are either complete or absent, even after a kill or a crash of the host.

Errors of the operating system name the file and the operation (`ligr_jax.errors.FileError`).
"""

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from ligr_jax.errors import LigrError, file_errors
from ligr_jax.places import require_local
from ligr_jax.store.publish import publish


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path; at the end of the block the file is renamed to `path`.

    Readers see the old file or the new one. The content is on disk before the rename, and the
    rename is on disk before the block ends, so that a crash of the host leaves no empty file. If
    the block raises an error, the temporary file is removed. A complete file in the working copy of
    an object store is published (`ligr_jax.store.publish`).

    Args:
        path: Path of the complete file.

    Raises:
        FileError: The file cannot be written.
        StoreError: The object store does not take the file.
    """
    # The temporary name is unique because two processes or threads may write the same file.
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    with file_errors("write", path):
        try:
            yield part
            sync(part)
            os.replace(part, path)
            sync(path.parent)
            publish(path)
        finally:
            with contextlib.suppress(OSError):  # the error of the block is the one to report
                part.unlink()


def write_atomically(path: Path, text: str) -> None:
    """Write a text as UTF-8; see `atomic_path`.

    Args:
        path: Path of the complete file.
        text: Content. Lone surrogates are written as backslash escapes.

    Raises:
        FileError: The file cannot be written.
    """
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def make_directory(path: Path) -> None:
    """Create a directory and its parents if they are absent.

    Raises:
        UsageError: The path is a URL.
        FileError: The directory cannot be created.
    """
    require_local(path)
    with file_errors("make the directory", path):
        path.mkdir(parents=True, exist_ok=True)


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, independent of the locale.

    Returns:
        The text without a byte order mark, with `\\n` as line breaks.

    Raises:
        FileError: The file cannot be read.
        LigrError: The file is not UTF-8.
    """
    with file_errors("read", path):
        raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as e:
        raise LigrError(f"{path}: not UTF-8 at byte {e.start}; convert it to UTF-8") from e


def link_or_copy(file: Path, to: Path) -> None:
    """Hard-link a file that no process changes, or copy it if the file system has no hard links.

    Raises:
        OSError: The file cannot be read, or `to` cannot be written.
    """
    try:
        os.link(file, to)
    except OSError:
        shutil.copyfile(file, to)


def version_of(path: Path) -> tuple[int, int] | None:
    """Return a value that changes when a file is replaced: its inode and its time in ns.

    Readers need no lock if the writer of a directory removes the index first and writes it last:
    files that were read between two equal versions of the index belong together.

    Returns:
        Inode and modification time; None if the file is absent.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def sync(path: Path) -> None:
    """Return when the content of a file, or the names in a directory, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
