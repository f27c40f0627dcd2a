"""First pass: read and check the log in batches, and distribute its rows over partitions.

The partition of a row is a hash of its member id. The number of partitions grows with the log, so
that each partition fits into memory for sorting. Partitions are Arrow streams on disk, with rows in
file order.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import polars as pl
import pyarrow as pa

from ligr_jax.data.prepare.sketches import MinuteHistogram
from ligr_jax.data.schema import MEMBER, TIME, BadInput
from ligr_jax.data.sources.skipped import SkippedRows, refuse_codings
from ligr_jax.data.sources.source import LogSource, OnBadRow
from ligr_jax.data.sources.times import refuse_other_unit
from ligr_jax.data.sources.validate import canonical_frame
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
        first_ms, last_ms: earliest and latest time, milliseconds since 1970 (UTC).
        earliest: file and row of the earliest time, for messages.
        minutes: timed rows by minute.
        bad: the invalid rows that were dropped, by column and rule.
    """

    rows: int = 0
    context: int = 0
    skipped: int = 0
    first_ms: int = 2**63 - 1
    last_ms: int = -1
    earliest: str = ""
    minutes: MinuteHistogram = field(default_factory=MinuteHistogram)
    bad: SkippedRows = field(default_factory=SkippedRows)

    def add(self, time_ms: np.ndarray, file: str, first_row: int) -> None:
        """Add the times (int64 [N]) of a batch that begins at `first_row` of `file`."""
        self.rows += len(time_ms)
        if not len(time_ms):
            return
        self.minutes.add(time_ms)
        self.last_ms = max(self.last_ms, int(time_ms.max()))
        if time_ms.min() < self.first_ms:
            self.first_ms = int(time_ms.min())
            self.earliest = f"{file}, near row {first_row + int(time_ms.argmin())}"


def number_of_partitions(rows: int, shard_rows: int) -> int:
    """Return the number of partitions of about `shard_rows` rows each."""
    return min(max(1, -(-rows // shard_rows)), MAX_PARTITIONS)


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
        part = mix64(frame[MEMBER].to_numpy()) % np.uint64(self.partitions)
        part = part.astype(np.uint16)  # radix sort
        order = np.argsort(part, kind="stable")
        ends = np.cumsum(np.bincount(part, minlength=self.partitions))
        table = frame[order].to_arrow().combine_chunks()
        start = 0
        for p, end in enumerate(ends.tolist()):
            if end > start:
                self._writer(p, table.schema).write_table(table.slice(start, end - start))
                self.rows[p] += end - start
            start = end

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


def partition_log(source: LogSource, spill: Spill, batch_rows: int, on_bad_row: OnBadRow) -> Tally:
    """Read, check and partition a log, including its context rows.

    Args:
        source: the log.
        spill: receives the rows.
        batch_rows: number of rows read at a time.
        on_bad_row: whether invalid rows are an error or are dropped.

    Returns:
        Totals of the log.

    Raises:
        BadInput: a row is not valid, the log is empty, or its times look like seconds.
    """
    tally = Tally()
    first_file = ""
    for batch in source.batches(batch_rows, on_bad_row):
        first_file = first_file or batch.file
        frame, skipped = canonical_frame(batch, source, on_bad_row, skipped=tally.bad)
        tally.skipped += skipped + batch.malformed
        row = np.arange(tally.rows, tally.rows + frame.height)
        tally.add(frame[TIME].to_numpy(), batch.file, batch.first_row)
        spill.write(frame.with_columns(pl.Series(ROW, row)))
    refuse_codings(tally.bad, source, first_file)
    _refuse_empty(tally)
    _refuse_unit(tally, source)
    for batch in source.context(batch_rows, on_bad_row) if source.context else ():
        frame, skipped = canonical_frame(batch, source, on_bad_row, timed=False, skipped=tally.bad)
        tally.skipped += skipped + batch.malformed
        tally.context += frame.height
        spill.write(frame.with_columns(pl.Series(ROW, np.full(frame.height, -1))))
    return tally


def _refuse_empty(tally: Tally) -> None:
    if tally.rows == 0 and tally.skipped:
        raise BadInput(
            f"all {tally.skipped} rows of the log were skipped as bad; run with "
            "--on-bad-row error to see the first of them"
        )
    if tally.rows == 0:
        raise BadInput("the log is empty: its files hold no impressions")


def _refuse_unit(tally: Tally, source: LogSource) -> None:
    """Raise `BadInput` if the times are in another unit than milliseconds.

    Seconds of the years 1990 to 2100, read as milliseconds, are all in January and February 1970.
    """
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
