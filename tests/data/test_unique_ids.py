"""Laws of unique ids: they equal those of `np.unique`, for marked and for sorted tables."""

import numpy as np
import pytest

from ligr_jax.data import unique_ids
from ligr_jax.data.unique_ids import find_unique_ids


@pytest.mark.parametrize("marked", [0, 2**20], ids=["sorted", "marked"])
@pytest.mark.parametrize("v", [1, 7, 1000])
def test_unique_ids_are_those_of_numpy(
    v: int, marked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unique_ids, "_MARKED", marked)
    rng = np.random.default_rng(v)
    for ids in (rng.integers(-1, v, (3, 50)), np.full((2, 4), -1), np.zeros((1, 9), int)):
        ids = ids.astype(np.int32)
        found, indices = find_unique_ids(ids, v)
        whole = np.unique(ids[ids >= 0])
        assert [x.dtype for x in (*found, indices)] == [np.int32] * 4
        assert found.unique.tolist() == [*whole, *range(v, v + min(v, ids.size) - len(whole))]
        for part, local, inverse, index in zip(ids, found.local, found.inverse, indices):
            own = np.unique(part[part >= 0])
            assert local.tolist() == [*own, *range(v, v + min(v, part.size) - len(own))]
            np.testing.assert_array_equal(found.unique[inverse[: len(own)]], own)
            assert (inverse[len(own) :] == len(found.unique)).all()
            np.testing.assert_array_equal(np.where(index < 0, -1, local[index]), part)
        parts_only, same = find_unique_ids(ids, v, whole_batch=False)
        assert parts_only.unique is parts_only.inverse is None
        np.testing.assert_array_equal(parts_only.local, found.local)
        np.testing.assert_array_equal(same, indices)
