"""Laws of hashing."""

import numpy as np
import pytest

from ligr_jax.ops.hashing import hash_rows, mix64


def test_mixing_is_murmur3s_finalizer_and_keeps_ids_apart() -> None:
    def slow(h: int) -> int:
        for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
            h = (h ^ (h >> 33)) * factor % 2**64
        return h ^ (h >> 33)

    ids = np.concatenate([np.arange(-500, 500), [2**63 - 1, -(2**63)]])
    assert mix64(ids).tolist() == [slow(int(i) % 2**64) for i in ids]
    assert len(np.unique(mix64(np.arange(100_000)))) == 100_000


@pytest.mark.parametrize("rows", [2, 3, 1000, 2**31 - 1])
def test_hashes_fill_every_row_but_the_missing_one(rows: int) -> None:
    hashed = hash_rows(np.arange(-20_000, 20_000), rows)
    assert hashed.min() >= 1
    assert hashed.max() <= rows - 1
    if rows <= 1000:
        counts = np.bincount(hashed, minlength=rows)[1:]
        expected = 40_000 / (rows - 1)
        assert np.abs(counts - expected).max() < 6 * np.sqrt(expected)
