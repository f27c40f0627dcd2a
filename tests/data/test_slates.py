"""Rows with lists of shown items become one row per item."""

import polars as pl
import pytest

from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.slates import exploded
from ligr_jax.data.sources.source import ROW_DIGEST, LogBatch


def batch(**columns: list[object]) -> LogBatch:
    frame = pl.DataFrame(columns)
    return LogBatch("log", 11, frame.with_columns(frame.hash_rows().alias(ROW_DIGEST)))


def test_each_element_is_a_row_that_knows_its_row_of_the_file() -> None:
    rows = exploded(batch(page=[1, 2, 3, 4], shown=[[5, 6], [], None, [5]]), ["shown"])
    assert rows.frame.select("page", "shown").rows() == [(1, 5), (1, 6), (4, 5)]
    assert [rows.row_number(k) for k in range(3)] == [11, 11, 14]


def test_a_repeated_row_repeats_its_elements_and_repeated_elements_of_a_row_differ() -> None:
    rows = exploded(batch(page=[1, 1], shown=[[7, 7], [7, 7]]), ["shown"])
    first, second, third, fourth = rows.frame[ROW_DIGEST]
    assert (first, second) == (third, fourth)
    assert first != second


def test_lists_of_unequal_length_are_an_error_with_their_row() -> None:
    with pytest.raises(BadInput, match=r"log, row 12, column 'seen': the list has 2 elements"):
        exploded(batch(shown=[[1], [2]], seen=[[0], [0, 1]]), ["shown", "seen"])
