"""Rows that repeat an impression: the last labels of an impression are kept."""

import numpy as np
import pytest

from ligr_jax.data.prepare.duplicates import superseded_rows


@pytest.mark.parametrize(
    ("time", "item", "click", "expected"),
    [
        ([5, 5, 5], [1, 1, 2], [0, 1, 0], [1, 0, 0]),
        ([5, 5], [1, 1], [1, 1], [0, 0]),  # a repeated exposure
        ([5, 6], [1, 1], [0, 1], [0, 0]),
        ([5, 5, 5], [1, 1, 1], [0, 1, 0], [1, 1, 0]),
        ([5, 5], [1, 1], [-1, 0], [1, 0]),
        ([-1, -1], [1, 1], [0, 1], [0, 0]),  # context
    ],
)
def test_only_the_last_row_of_an_impression_with_several_labels_is_kept(
    time: list[int], item: list[int], click: list[int], expected: list[int]
) -> None:
    other = np.zeros(len(time), np.int8)
    for member, labels in (
        ([7] * len(time), {"click": np.array(click, np.int8), "like": other}),
        (list(range(len(time))), {"click": np.array(click, np.int8)}),
    ):
        superseded = superseded_rows(np.array(member), np.array(time), np.array(item), labels)
        assert superseded.tolist() == [bool(e) and len(set(member)) == 1 for e in expected]
