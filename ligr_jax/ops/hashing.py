"""Stateless hashing of 64-bit ids to table rows, on the host."""

import numpy as np


def mix64(ids: np.ndarray) -> np.ndarray:
    """Murmur3's 64-bit finalizer (a bijection of 64-bit integers), elementwise; uint64."""
    h = ids.astype(np.int64).view(np.uint64)
    h = (h ^ (h >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    h = (h ^ (h >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return h ^ (h >> np.uint64(33))


def hash_rows(ids: np.ndarray, rows: int) -> np.ndarray:
    """Table rows 1..rows-1 for int64 `ids`: row 0 is left for "missing". Collisions are allowed."""
    return (mix64(ids) % np.uint64(rows - 1)).astype(np.int32) + np.int32(1)
