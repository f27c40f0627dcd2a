"""Pass 1: read the log once in bounded batches, check it, and cut it into partitions of members.

A member goes to a partition by a stateless hash of its id. A partition is small enough to be sorted
in memory, however long the log is; it lies on disk as an Arrow stream, rows in file order.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import polars as pl
import pyarrow as pa

from ligr_jax.data.prepare.sketches import MinuteHistogram
from ligr_jax.data.schema import MEMBER, TIME, BadInput
from ligr_jax.data.sources.skipped import Skipped, refuse_codings
from ligr_jax.data.sources.source import OnBadRow, Source
from ligr_jax.data.sources.times import refuse_other_unit
from ligr_jax.data.sources.validate import canonical_frame
from ligr_jax.ops.hashing import mix64

MAX_PARTITIONS = 512  # open files; longer logs get larger shards
ROW = "\x1frow"  # number of the row in the whole log; no column of a file has such a name


@dataclass
class Tally:
    """What pass 1 has seen of the timed rows."""

    rows: int = 0
    context: int = 0
    skipped: int = 0
    first_ms: int = 2**63 - 1
    last_ms: int = -1
    earliest: str = ""  # where the earliest row stands, for messages
    minutes: MinuteHistogram = field(default_factory=MinuteHistogram)
    bad: Skipped = field(default_factory=Skipped)

    def see(self, time_ms: np.ndarray, file: str, first_row: int) -> None:
        """Counts a batch of good rows."""
        self.rows += len(time_ms)
        if not len(time_ms):
            return
        self.minutes.add(time_ms)
        self.last_ms = max(self.last_ms, int(time_ms.max()))
        if time_ms.min() < self.first_ms:
            self.first_ms = int(time_ms.min())
            self.earliest = f"{file}, near row {first_row + int(time_ms.argmin())}"


def number_of_partitions(rows: int, shard_rows: int) -> int:
    """Partitions for about `shard_rows` rows each."""
    return min(max(1, -(-rows // shard_rows)), MAX_PARTITIONS)


class Spill:
    """Partitions being written: Arrow streams `part-00000.arrows` ... in `directory`.

    rows: how many each has received; only those that have some have a file.
    """

    def __init__(self, directory: Path, partitions: int) -> None:
        self.directory = directory
        self.partitions = partitions
        self.rows = [0] * partitions
        self._writers: dict[int, tuple[pa.ipc.RecordBatchStreamWriter, IO[bytes]]] = {}

    def path(self, partition: int) -> Path:
        return self.directory / f"part-{partition:05d}.arrows"

    def write(self, frame: pl.DataFrame) -> None:
        """Appends each row to its member's partition, in the order of `frame`."""
        part = mix64(frame[MEMBER].to_numpy()) % np.uint64(self.partitions)
        order = np.argsort(part, kind="stable")
        ends = np.cumsum(np.bincount(part.astype(np.int64), minlength=self.partitions))
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
        while self._writers:
            _, (writer, file) = self._writers.popitem()
            with file:
                writer.close()

    def __enter__(self) -> "Spill":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self.close()
        while self._writers:  # after an error: only let go of the files
            self._writers.popitem()[1][1].close()


def partition_log(source: Source, spill: Spill, batch_rows: int, on_bad_row: OnBadRow) -> Tally:
    """Reads, checks and spills all of `source`, context rows included.

    Raises `BadInput` for bad rows, an empty log and times that look like seconds.
    """
    tally = Tally()
    first_file = ""
    for batch in source.batches(batch_rows, on_bad_row):
        first_file = first_file or batch.file
        frame, skipped = canonical_frame(batch, source, on_bad_row, skipped=tally.bad)
        tally.skipped += skipped + batch.malformed
        row = np.arange(tally.rows, tally.rows + frame.height)
        tally.see(frame[TIME].to_numpy(), batch.file, batch.first_row)
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


def _refuse_unit(tally: Tally, source: Source) -> None:
    """Seconds of the years 1990 to 2100, read as milliseconds, all fall into January 1970."""
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
