"""Files that are complete or absent, also after a kill or a crash of the host."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary name to write to, renamed to `path` at the end, or removed on an error.

    Readers see the old file or the new one. The content is on disk before the rename, and the
    rename before the block ends, so that a crash of the host leaves no empty file.
    """
    # The name is unique: two processes, or two threads, may write the same file.
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        yield part
        sync(part)
        os.replace(part, path)
        sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Write a text, as UTF-8, to a `whole` file."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


def sync(path: Path) -> None:
    """Return when a file's content, or a directory's list of names, is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
