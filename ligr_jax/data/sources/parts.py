"""Parts of a log: runs of consecutive rows that are read independently of each other.

A part yields its rows as deferred batches: reading a file is sequential, and the work on a batch
that was read (normalization, digests, derived columns) is done when it is called, in any thread.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

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
