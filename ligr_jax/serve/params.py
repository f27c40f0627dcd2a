"""Trees of arrays, such as dense parameters and batch statistics, in one NumPy archive by path.

Names in a path are escaped (`ligr_jax.config.escaping`) and joined by slashes.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ligr_jax.atomic import atomic_path
from ligr_jax.config import escape, unescape


def save_tree(path: Path, tree: Mapping[str, Any]) -> None:
    """Write a tree of arrays as an uncompressed NumPy archive.

    Args:
        path: path of the file.
        tree: nested dictionaries of arrays; empty dictionaries are not stored.
    """
    arrays: dict[str, Any] = dict(_leaves(tree))
    with atomic_path(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)


def load_tree(path: Path) -> dict[str, Any]:
    """Read a tree of arrays that `save_tree` wrote, from a file that is intact."""
    tree: dict[str, Any] = {}
    with np.load(path, allow_pickle=False) as archive:
        for name in archive.files:
            *parents, leaf = map(unescape, name.split("/"))
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = archive[name]
    return tree


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for key, value in tree.items():
        path = prefix + escape(key)
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}/")
        else:
            yield path, np.asarray(value)
