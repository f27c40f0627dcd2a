"""Files that are whole or not there."""

import os
import threading
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Writes to a temporary name, then renames: readers see the old file or the new one."""
    # Nobody else's: two processes, or two threads, may write the same file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    temporary.write_text(text)
    os.replace(temporary, path)
