"""Rows with lists of shown items: one row per item.

Some logs have one row per page or request, with the shown items in a list column. Its items are one
slate: they keep the time of the row, so that none sees the labels of another.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.source import ROW_DIGEST, LogBatch


def exploded(batch: LogBatch, lists: Sequence[str]) -> LogBatch:
    """Return a batch with one row per element of its list columns.

    Args:
        batch: rows of a file.
        lists: list columns with equal lengths in each row; the other columns are repeated.

    Returns:
        The elements, in order. Rows whose lists are empty or null are dropped. `ROW_DIGEST` differs
        between the elements of a row, so a repeated row gives repeated elements only.

    Raises:
        BadInput: the lists of a row differ in length.
    """
    # A batch as it was read: faults and numbers would be those of rows before this function.
    assert not batch.faults
    assert batch.row_numbers is None
    frame = batch.frame
    lengths = [frame[name].list.len().fill_null(0).to_numpy() for name in lists]
    for name, length in zip(lists, lengths, strict=True):
        unequal = length != lengths[0]
        if unequal.any():
            row = int(unequal.argmax())
            raise BadInput(
                f"{batch.file}, row {batch.row_number(row)}, column {name!r}: the list has "
                f"{length[row]} elements, and {lists[0]!r} has {lengths[0][row]}; lists that are "
                "exploded together need one element per shown item"
            )
    source_row = np.repeat(np.arange(frame.height), lengths[0])
    starts = np.cumsum(lengths[0]) - lengths[0]
    position = np.arange(len(source_row)) - starts[source_row]
    rows = frame.filter(pl.Series(lengths[0] > 0)).explode(lists)
    if ROW_DIGEST in rows.columns:
        keys = pl.DataFrame([rows[ROW_DIGEST], pl.Series("position", position)])
        rows = rows.with_columns(keys.hash_rows(seed=0).alias(ROW_DIGEST))
    return replace(batch, frame=rows, row_numbers=batch.first_row + source_row)
