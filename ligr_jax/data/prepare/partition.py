"""First pass: read and check the log in batches, and distribute its rows over partitions.

The partition of a row is a hash of its member id. The number of partitions grows with the log, so
that each partition fits into memory for sorting. Partitions are Arrow streams on disk, with rows in
file order.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import polars as pl
import pyarrow as pa

from ligr_jax.data.prepare.sketches import MinuteHistogram
from ligr_jax.data.schema import MEMBER, TIME, BadInput
from ligr_jax.data.sources.parts import single_part
from ligr_jax.data.sources.skipped import SkippedRows, refuse_codings, refuse_columns
from ligr_jax.data.sources.source import DeferredBatch, LogSource, OnBadRow, Part
from ligr_jax.data.sources.times import refuse_other_unit
from ligr_jax.data.sources.validate import canonical_frame
from ligr_jax.data.threads import ordered_map
from ligr_jax.ops.hashing import mix64

MAX_PARTITIONS = 512  # limits open files; longer logs get larger shards
ROW = "\x1frow"  # row number in the whole log; control characters are not allowed in user names


@dataclass
class Tally:
    """Totals of the first pass.

    Attributes:
        rows: number of timed rows.
        context: number of untimed rows.
        skipped: number of invalid rows that were dropped.
        labelled: number of rows that have a row in the table of labels.
        first_ms, last_ms: earliest and latest time, milliseconds since 1970 (UTC).
        earliest: file and row of the earliest time, for messages.
        minutes: timed rows by minute.
        bad: the invalid rows that were dropped, by column and rule.
    """

    rows: int = 0
    context: int = 0
    skipped: int = 0
    labelled: int = 0
    first_ms: int = 2**63 - 1
    last_ms: int = -1
    earliest: str = ""
    minutes: MinuteHistogram = field(default_factory=MinuteHistogram)
    bad: SkippedRows = field(default_factory=SkippedRows)

    def merge(self, later: "Tally") -> None:
        """Add the totals of rows that follow in the log."""
        self.rows += later.rows
        self.context += later.context
        self.skipped += later.skipped
        self.labelled += later.labelled
        self.minutes.merge(later.minutes)
        self.last_ms = max(self.last_ms, later.last_ms)
        if later.first_ms < self.first_ms:
            self.first_ms, self.earliest = later.first_ms, later.earliest
        self.bad.merge(later.bad)


@dataclass(frozen=True)
class CheckedBatch:
    """The valid rows of a batch, without row numbers, and their totals."""

    file: str
    frame: pl.DataFrame
    tally: Tally


def check_log_batch(
    deferred: DeferredBatch, source: LogSource, on_bad_row: OnBadRow, timed: bool = True
) -> CheckedBatch:
    """Read, check and count a batch.

    Args:
        deferred: the batch.
        source: its log.
        on_bad_row: whether an invalid row is an error or is dropped.
        timed: whether the rows have times and labels, which context rows lack.

    Raises:
        BadInput: a row is not valid.
    """
    batch, tally = deferred(), Tally()
    frame, skipped = canonical_frame(batch, source, on_bad_row, timed, tally.bad)
    tally.skipped = skipped + batch.malformed
    tally.labelled = batch.labelled
    if not timed:
        tally.context = frame.height
    elif frame.height:
        time_ms = frame[TIME].to_numpy()
        tally.rows = frame.height
        tally.minutes.add(time_ms)
        tally.first_ms, tally.last_ms = int(time_ms.min()), int(time_ms.max())
        tally.earliest = f"{batch.file}, near row {batch.row_number(int(time_ms.argmin()))}"
    return CheckedBatch(batch.file, frame, tally)


def number_of_partitions(rows: int, shard_rows: int) -> int:
    """Return the number of partitions of about `shard_rows` rows each."""
    return min(max(1, -(-rows // shard_rows)), MAX_PARTITIONS)


def by_partition(frame: pl.DataFrame, partitions: int) -> Iterator[tuple[int, pa.Table]]:
    """Yield the rows of each partition that has rows, in order."""
    part = mix64(frame[MEMBER].to_numpy()) % np.uint64(partitions)
    part = part.astype(np.uint16)  # NumPy sorts 16 bits by radix
    if partitions > 1:
        frame = frame[np.argsort(part, kind="stable")]
    table = frame.to_arrow().combine_chunks()
    lengths = np.bincount(part, minlength=partitions)
    starts = np.cumsum(lengths) - lengths
    for p in np.flatnonzero(lengths).tolist():
        yield p, table.slice(starts[p], lengths[p])


class Spill:
    """Writer of partitions as Arrow streams `part-00000.arrows` ... in a directory.

    Attributes:
        directory: the directory.
        partitions: number of partitions.
        rows: number of rows of each partition; an empty partition has no file.
    """

    def __init__(self, directory: Path, partitions: int) -> None:
        self.directory = directory
        self.partitions = partitions
        self.rows = [0] * partitions
        self._writers: dict[int, tuple[pa.ipc.RecordBatchStreamWriter, IO[bytes]]] = {}

    def path(self, partition: int) -> Path:
        """Return the file of a partition."""
        return self.directory / f"part-{partition:05d}.arrows"

    def write(self, frame: pl.DataFrame) -> None:
        """Append each row to the partition of its member, in order."""
        for p, table in by_partition(frame, self.partitions):
            self._writer(p, table.schema).write_table(table)
            self.rows[p] += table.num_rows

    def _writer(self, partition: int, schema: pa.Schema) -> pa.ipc.RecordBatchStreamWriter:
        if partition not in self._writers:
            file = self.path(partition).open("wb")
            self._writers[partition] = pa.ipc.new_stream(file, schema), file
        return self._writers[partition][0]

    def close(self) -> None:
        """Finish all files."""
        while self._writers:
            _, (writer, file) = self._writers.popitem()
            with file:
                writer.close()

    def __enter__(self) -> "Spill":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self.close()
        while self._writers:  # after an error, close the files without finishing the streams
            self._writers.popitem()[1][1].close()


def partition_log(
    source: LogSource, spill: Spill, batch_rows: int, on_bad_row: OnBadRow, workers: int
) -> Tally:
    """Read, check and partition a log, including its context rows.

    Args:
        source: the log.
        spill: receives the rows.
        batch_rows: number of rows read at a time.
        on_bad_row: whether invalid rows are an error or are dropped.
        workers: number of threads that check batches.

    Returns:
        Totals of the log.

    Raises:
        BadInput: a row is not valid, the log is empty, or its times look like seconds.
    """
    tally = Tally()
    first_file = ""
    check = partial(check_log_batch, source=source, on_bad_row=on_bad_row)
    batches = (b for part in log_parts(source) for b in part(batch_rows, on_bad_row))
    for checked in ordered_map(check, batches, workers):
        first_file = first_file or checked.file
        row = np.arange(tally.rows, tally.rows + checked.frame.height)
        tally.merge(checked.tally)
        spill.write(checked.frame.with_columns(pl.Series(ROW, row)))
    refuse_log(tally, source, first_file)
    check = partial(check, timed=False)
    batches = (b for part in context_parts(source) for b in part(batch_rows, on_bad_row))
    for checked in ordered_map(check, batches, workers):
        tally.merge(checked.tally)
        spill.write(checked.frame.with_columns(pl.Series(ROW, np.full(checked.frame.height, -1))))
    return tally


def log_parts(source: LogSource) -> tuple[Part, ...]:
    """Return the parts of the timed rows of a log."""
    return source.parts or (single_part(source.batches),)


def context_parts(source: LogSource) -> tuple[Part, ...]:
    """Return the parts of the context rows of a log."""
    return (single_part(source.context),) if source.context else ()


def refuse_log(tally: Tally, source: LogSource, first_file: str) -> None:
    """Check the totals of a log.

    Args:
        tally: totals of the timed rows.
        source: the log.
        first_file: its first file, for messages.

    Raises:
        BadInput: the log is empty, its skipped rows are a whole column, no row has its labels,
            or its times look like another unit.
    """
    refuse_codings(tally.bad, source, first_file)
    refuse_columns(tally.bad, source, tally.rows + tally.skipped, first_file)
    _refuse_empty(tally)
    if source.label_table and not tally.labelled:
        raise BadInput(
            f"{source.label_table[0]}: none of the {tally.rows:,} impressions has its key there; "
            "compare the key columns (--labels-on) of both tables"
        )
    _refuse_unit(tally, source)


def _refuse_empty(tally: Tally) -> None:
    if tally.rows == 0 and tally.skipped:
        rules = [f"{r['column']} {r['rule']}".strip() for r in tally.bad.description()]
        raise BadInput(
            f"all {tally.skipped} rows of the log were skipped as bad ({'; '.join(rules[:3])}); "
            "run with --on-bad-row error to see the first of them"
        )
    if tally.rows == 0:
        raise BadInput("the log is empty: its files hold no impressions")


def _refuse_unit(tally: Tally, source: LogSource) -> None:
    """Raise `BadInput` if the times are in another unit than milliseconds.

    Seconds of the years 1990 to 2100, read as milliseconds, are all in January and February 1970.
    """
    if source.schema.time_is_order:
        return
    if source.time_rule is not None:
        where = f"{tally.earliest}, column {TIME!r}"
        refuse_other_unit(tally.first_ms, tally.last_ms, source.time_rule, where)
        return
    if tally.first_ms >= 631_152_000 and tally.last_ms < 4_102_444_800:
        raise BadInput(
            f"{tally.earliest}, column {TIME!r}: value {tally.first_ms} is the earliest time, "
            f"{tally.last_ms} the latest: these look like seconds, not milliseconds since 1970; "
            "multiply the column by 1,000"
        )
