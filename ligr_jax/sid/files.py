"""Atomic reading and writing of .npz files."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ligr_jax.atomic import atomic_path
from ligr_jax.data.schema import BadInput


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a .npz file atomically."""
    with atomic_path(path) as part, part.open("wb") as file:
        np.savez(file, **dict(arrays))  # type: ignore[arg-type]


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read a .npz file; raise `BadInput` if it is damaged."""
    try:
        with np.load(path) as file:
            return {name: file[name] for name in file.files}
    except Exception as e:  # zipfile and NumPy raise many things on a damaged file
        raise BadInput(f"{path}: cannot be read ({e}); delete it and train again") from e
