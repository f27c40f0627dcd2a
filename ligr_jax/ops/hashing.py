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


def qr_rows(ids: np.ndarray, rows: int) -> np.ndarray:
    """Two table rows for each of int64 `ids`, int32 [..., 2], whose embeddings are summed.

    The two 32-bit halves of the hash choose them, one in each half of the table: with
    R = (rows - 1) // 2, rows 1 + low % R and 1 + R + high % R. Two ids share both rows with a
    probability of about 1 / R^2 (LiRank 3.12, after Shi et al. 2019).
    """
    h = mix64(ids)
    r = np.uint64((rows - 1) // 2)
    low, high = h & np.uint64(0xFFFFFFFF), h >> np.uint64(32)
    return np.stack([low % r, r + high % r], -1).astype(np.int32) + np.int32(1)
