"""Binary files that are whole or not there, and arrays in them."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from ligr_jax.data.schema import BadInput


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary name to write to, renamed to `path` at the end, or removed on an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a .npz file."""
    with whole(path) as part, part.open("wb") as file:
        np.savez(file, **dict(arrays))  # type: ignore[arg-type]


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads a .npz file; raises `BadInput` where it is damaged."""
    try:
        with np.load(path) as file:
            return {name: file[name] for name in file.files}
    except Exception as e:  # zipfile and NumPy raise many things on a damaged file
        raise BadInput(f"{path}: cannot be read ({e}); delete it and train again") from e
