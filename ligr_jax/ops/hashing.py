"""Stateless hashing of 64-bit ids to table rows, on the host."""

import numpy as np


def mix64(ids: np.ndarray) -> np.ndarray:
    """Apply Murmur3's 64-bit finalizer, a bijection of 64-bit integers, elementwise.

    Args:
        ids: integers [...], converted to int64.

    Returns:
        uint64 [...].
    """
    h = ids.astype(np.int64).view(np.uint64)
    h = (h ^ (h >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    h = (h ^ (h >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return h ^ (h >> np.uint64(33))


def hash_rows(ids: np.ndarray, rows: int) -> np.ndarray:
    """Return one table row per id, by hashing; collisions are allowed.

    Args:
        ids: int64 [...].
        rows: number of rows of the table, including row 0, which is reserved for "missing".

    Returns:
        int32 [...] in 1..rows-1.
    """
    return (mix64(ids) % np.uint64(rows - 1)).astype(np.int32) + np.int32(1)


def qr_rows(ids: np.ndarray, rows: int) -> np.ndarray:
    """Return two table rows per id, whose embeddings are to be summed.

    Each 32-bit half of the hash selects a row in one half of the table: with R = (rows - 1) // 2,
    rows 1 + low % R and 1 + R + high % R. Two ids share both rows with probability about 1 / R^2
    (LiRank 3.12, after Shi et al. 2019).

    Args:
        ids: int64 [...].
        rows: number of rows of the table, including row 0, which is reserved for "missing".

    Returns:
        int32 [..., 2].
    """
    h = mix64(ids)
    r = np.uint64((rows - 1) // 2)
    low = h & np.uint64(0xFFFFFFFF)
    high = h >> np.uint64(32)
    return np.stack([low % r, r + high % r], -1).astype(np.int32) + np.int32(1)
