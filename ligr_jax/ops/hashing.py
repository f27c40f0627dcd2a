"""Stateless hashing of 64-bit ids to table rows, on the host."""

import numpy as np

_SHIFT = np.uint64(33)
_FACTORS = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))


def mix64(ids: np.ndarray) -> np.ndarray:
    """Apply Murmur3's 64-bit finalizer, a bijection of 64-bit integers, elementwise.

    Args:
        ids: integers [...], converted to int64.

    Returns:
        uint64 [...].
    """
    h = ids.astype(np.int64).view(np.uint64)
    shifted = np.empty_like(h)
    for factor in _FACTORS:
        np.right_shift(h, _SHIFT, out=shifted)
        np.bitwise_xor(h, shifted, out=h)
        np.multiply(h, factor, out=h)
    np.right_shift(h, _SHIFT, out=shifted)
    return np.bitwise_xor(h, shifted, out=h)


def hash_rows(ids: np.ndarray, rows: int) -> np.ndarray:
    """Return one table row per id, by hashing; collisions are allowed.

    Args:
        ids: int64 [...].
        rows: number of rows of the table, including row 0, which is reserved for "missing".

    Returns:
        int32 [...] in 1..rows-1.
    """
    h = mix64(ids)
    return (_remainder(h, rows - 1) + np.uint64(1)).astype(np.int32)


def _remainder(h: np.ndarray, divisor: int) -> np.ndarray:
    """Return `h % divisor`; NumPy has a vectorized division by a constant, but no remainder."""
    d = np.uint64(divisor)
    remainder: np.ndarray = h - h // d * d
    return remainder


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
    half = (rows - 1) // 2
    out = np.empty((*h.shape, 2), np.int32)
    out[..., 0] = _remainder(h & np.uint64(0xFFFFFFFF), half)
    out[..., 1] = _remainder(h >> np.uint64(32), half)
    out += np.array([1, 1 + half], np.int32)
    return out
