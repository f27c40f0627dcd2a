"""Files that are whole or not there."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary name to write to, renamed to `path` at the end, or removed on an error: readers
    see the old file or the new one."""
    # Nobody else's: two processes, or two threads, may write the same file.
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Writes a text as a `whole` file."""
    with whole(path) as part:
        part.write_text(text)
