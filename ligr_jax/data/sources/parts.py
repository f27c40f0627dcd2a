"""Parts of a log: runs of consecutive rows that are read independently of each other.

A part yields its rows as deferred batches: reading a file is sequential, and the work on a batch
that was read (normalization, digests, derived columns) is done when it is called, in any thread.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import polars as pl

from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.source import Batches, DeferredBatch, LogBatch, OnBadRow, Part


def chained(parts: Sequence[Part]) -> Batches:
    """Return the function that yields the batches of all parts in order."""

    def batches(batch_rows: int, on_bad_row: OnBadRow) -> Iterator[LogBatch]:
        for part in parts:
            for deferred in part(batch_rows, on_bad_row):
                yield deferred()

    return batches


def converted(part: Part, convert: Callable[[LogBatch], LogBatch]) -> Part:
    """Return a part whose batches are converted after they are read."""

    def deferred_batches(batch_rows: int, on_bad_row: OnBadRow) -> Iterator[DeferredBatch]:
        for deferred in part(batch_rows, on_bad_row):
            yield partial(_call_and_convert, deferred, convert)

    return deferred_batches


def with_fewer_rows(part: Part, fewer: int) -> Part:
    """Return a part whose batches have fewer rows, because each row becomes `fewer` rows."""

    def deferred_batches(batch_rows: int, on_bad_row: OnBadRow) -> Iterator[DeferredBatch]:
        return part(max(batch_rows // fewer, 1), on_bad_row)

    return deferred_batches


def whole_groups(parts: Sequence[Part], key: str) -> Part:
    """Return a part whose batches do not cut groups of rows with equal keys.

    The rows of the last group of a batch are held until the next batch, so memory is bounded by a
    batch and the longest group.

    Args:
        parts: the parts of one Parquet file, whose rows are sorted by the key.
        key: an integer column, e.g. the user.

    Returns:
        The part. Its batches raise `BadInput` if the rows are not sorted.
    """

    def deferred_batches(batch_rows: int, on_bad_row: OnBadRow) -> Iterator[DeferredBatch]:
        held: LogBatch | None = None
        for part in parts:
            for deferred in part(batch_rows, on_bad_row):
                batch = deferred()
                if held is not None:
                    frame = pl.concat([held.frame, batch.frame])
                    batch = replace(batch, frame=frame, first_row=held.first_row)
                end = _start_of_last_group(batch, key)
                if end:
                    yield partial(_same, replace(batch, frame=batch.frame[:end]))
                held = replace(batch, frame=batch.frame[end:], first_row=batch.first_row + end)
        if held is not None:
            yield partial(_same, held)

    return deferred_batches


def _start_of_last_group(batch: LogBatch, key: str) -> int:
    """Return the index of the first row of the last group.

    Raises:
        BadInput: a key is null or smaller than the one before.
    """
    keys = batch.frame[key].cast(pl.Int64)
    unsorted = (keys.is_null() | (keys < keys.shift(1))).fill_null(False)
    if unsorted.any():
        row = unsorted.arg_max() or 0
        raise BadInput(
            f"{batch.file}, row {batch.row_number(row)}, column {key!r}: value {keys[row]} follows "
            f"{keys[row - 1] if row else 'no value'}; sort the file by {key}"
        )
    return int(keys.search_sorted(keys[-1]))


def single_part(batches: Batches) -> Part:
    """Return a part that has all batches of a source."""

    def deferred_batches(batch_rows: int, on_bad_row: OnBadRow) -> Iterator[DeferredBatch]:
        for batch in batches(batch_rows, on_bad_row):
            yield partial(_same, batch)

    return deferred_batches


def _call_and_convert(deferred: DeferredBatch, convert: Callable[[LogBatch], LogBatch]) -> LogBatch:
    return convert(deferred())


def _same(batch: LogBatch) -> LogBatch:
    return batch
