"""Stateless hashing of 64-bit ids to table rows, on the host."""

from collections.abc import Iterator

import numpy as np

_SHIFT = np.uint64(33)
_FACTORS = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))
_BLOCK = 2**14  # ids hashed at a time, so that all temporaries stay in a core's cache


def mix64(ids: np.ndarray) -> np.ndarray:
    """Apply Murmur3's 64-bit finalizer, a bijection of 64-bit integers, elementwise.

    Args:
        ids: integers [...], converted to int64.

    Returns:
        uint64 [...].
    """
    out = np.empty(ids.shape, np.uint64)
    flat = out.reshape(-1)
    for block, h in _mixed_blocks(ids):
        flat[block] = h
    return out


def hash_rows(ids: np.ndarray, rows: int) -> np.ndarray:
    """Return one table row per id, by hashing; collisions are allowed.

    Args:
        ids: int64 [...].
        rows: number of rows of the table, including row 0, which is reserved for "missing".

    Returns:
        int32 [...] in 1..rows-1.
    """
    out = np.empty(ids.shape, np.int32)
    flat = out.reshape(-1)
    for block, h in _mixed_blocks(ids):
        flat[block] = _remainder(h, rows - 1)
    out += 1
    return out


def _mixed_blocks(ids: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the hashes of ids in blocks: the flat positions, and uint64 that the next block reuses.

    Args:
        ids: integers [...], converted to int64.
    """
    flat = ids.reshape(-1).astype(np.int64, copy=False).view(np.uint64)
    hashed, scratch = np.empty((2, min(_BLOCK, flat.size)), np.uint64)
    for start in range(0, flat.size, _BLOCK):
        block = slice(start, min(start + _BLOCK, flat.size))
        h, shifted = hashed[: block.stop - start], scratch[: block.stop - start]
        h[:] = flat[block]
        for factor in _FACTORS:
            np.right_shift(h, _SHIFT, out=shifted)
            np.bitwise_xor(h, shifted, out=h)
            np.multiply(h, factor, out=h)
        np.right_shift(h, _SHIFT, out=shifted)
        yield block, np.bitwise_xor(h, shifted, out=h)


def _remainder(h: np.ndarray, divisor: int) -> np.ndarray:
    """Return `h % divisor` as int32; NumPy vectorizes division by a constant, but no remainder.

    Args:
        h: uint64 [...].
        divisor: at most 2^31 - 1, so the low 32 bits of the product suffice.
    """
    product = (h // np.uint64(divisor)).astype(np.uint32)
    product *= np.uint32(divisor)
    remainder: np.ndarray = h.astype(np.uint32)
    remainder -= product
    return remainder.view(np.int32)


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
