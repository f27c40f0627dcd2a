"""Segments are the groups of `itertools.groupby`."""

import itertools

import numpy as np
import pytest

from ligr_jax.ops.segments import segments, starts_segment


@pytest.mark.parametrize("rows", [0, 1, 2, 50])
def test_segments_are_the_groups_of_equal_rows(rows: int) -> None:
    rng = np.random.default_rng(rows)
    member, score = rng.integers(0, 3, rows), rng.choice([0.5, np.inf], rows)
    groups = [len(list(g)) for _, g in itertools.groupby(zip(member, score))]
    first, length = segments(member, score)
    assert length.tolist() == groups
    assert first.tolist() == np.cumsum([0, *groups])[:-1].tolist()
    assert np.flatnonzero(starts_segment(member, score)).tolist() == first.tolist()
