"""Laws of hashing: bijective mixing, even rows, few collisions."""

import numpy as np
import pytest

from ligr_jax.ops.hashing import hash_rows, mix64, qr_rows


def test_mixing_is_murmur3s_finalizer_and_has_no_collisions() -> None:
    def slow(h: int) -> int:
        for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
            h = (h ^ (h >> 33)) * factor % 2**64
        return h ^ (h >> 33)

    ids = np.concatenate([np.arange(-500, 500), [2**63 - 1, -(2**63)]])
    assert mix64(ids).tolist() == [slow(int(i) % 2**64) for i in ids]
    assert len(np.unique(mix64(np.arange(100_000)))) == 100_000


@pytest.mark.parametrize("rows", [2, 3, 1000, 2**31 - 1])
def test_hashes_fill_all_rows_except_that_of_missing_ids(rows: int) -> None:
    hashed = hash_rows(np.arange(-20_000, 20_000), rows)
    assert hashed.min() >= 1
    assert hashed.max() <= rows - 1
    if rows <= 1000:
        counts = np.bincount(hashed, minlength=rows)[1:]
        expected = 40_000 / (rows - 1)
        assert np.abs(counts - expected).max() < 6 * np.sqrt(expected)


@pytest.mark.parametrize("rows", [2001, 2002])
def test_two_ids_rarely_share_both_rows(rows: int) -> None:
    """The frequency is 1 / R^2, and each half of the table is filled evenly."""
    n, r = 100_000, 1000
    pairs = qr_rows(np.arange(n) - n // 2, rows)
    assert pairs.dtype == np.int32
    for half, first in ((pairs[:, 0], 1), (pairs[:, 1], 1 + r)):
        counts = np.bincount(half - first, minlength=r)
        assert len(counts) == r
        assert np.abs(counts - n / r).max() < 6 * np.sqrt(n / r)
    _, sizes = np.unique(pairs, axis=0, return_counts=True)
    expected = n * (n - 1) / 2 / r**2  # about 5,000 of 5e9 pairs of ids
    assert abs((sizes * (sizes - 1) // 2).sum() - expected) < 6 * np.sqrt(expected)


@pytest.mark.parametrize("rows", [3, 4, 2**31 - 1])
def test_both_rows_lie_in_the_table(rows: int) -> None:
    pairs = qr_rows(np.arange(1000).reshape(10, 100), rows)
    assert pairs.shape == (10, 100, 2)
    assert pairs.min() >= 1
    assert pairs.max() <= rows - 1
