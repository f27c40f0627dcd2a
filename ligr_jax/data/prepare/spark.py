"""Preparation of a log on Spark, for logs that one machine is too small for.

Spark schedules, shuffles and retries; rows are read, checked, sorted and written by the functions
that one machine uses, so that shards, manifest and digest are the same:

    first stage   one task per part of the log (`ligr_jax.data.sources.parts`) reads and checks its
                  rows and sends them, as Arrow streams, to the partitions of their members
    driver        merges the totals of the parts, reports the first fault in the order of the log,
                  and computes the times of the splits and the first row number of each part
    second stage  one task per partition sorts its histories and writes its shard

Only item ids are joined with the rows: the item table is sent once to every executor, scalar
features are looked up in the second stage after the shuffle, and vectors stay in items.arrow.
Every executor needs this package, the files of the log, and the output directory under the same
paths, i.e. on a shared file system.
"""

import logging
import os
import socket
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

from ligr_jax.data.manifest import Manifest
from ligr_jax.data.prepare.build import check_context, edges_of, finish
from ligr_jax.data.prepare.items import read_item_table
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.prepare.partition import (
    ROW,
    Tally,
    by_partition,
    check_log_batch,
    context_parts,
    log_parts,
    number_of_partitions,
    refuse_log,
)
from ligr_jax.data.prepare.publish import published
from ligr_jax.data.prepare.shard_build import ShardBuilder, ShardStats, shard_path
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.source import ItemSource, LogBatch, LogSource
from ligr_jax.data.sources.validate import check_roles
from ligr_jax.errors import LigrError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_log = logging.getLogger(__name__)


@dataclass
class PartTotals:
    """Totals of a part of the log.

    Attributes:
        tally: totals of its rows.
        first_file: file of its first batch, "" without batches.
        error: the first fault, or "".
    """

    tally: Tally
    first_file: str = ""
    error: str = ""


def prepare_on_spark(
    source: LogSource, out: str | Path, options: PrepareOptions, spark: "SparkSession"
) -> Manifest:
    """Prepare a log with Spark; see `ligr_jax.data.prepare.prepare` for arguments and errors.

    Args:
        source: the log.
        out: output directory, on a file system that driver and executors share.
        options: options. `workers` has no effect.
        spark: session with the cluster.
    """
    made_by = {**source.description, "options": options.description()}
    write = partial(_build, source, options, spark)
    return published(Path(out).resolve(), made_by, write, options.overwrite)


def _build(
    source: LogSource,
    options: PrepareOptions,
    spark: "SparkSession",
    work: Path,
    made_by: Mapping[str, Any],
) -> Manifest:
    from pyspark.cloudpickle import dumps

    check_roles(source)
    check_context(source, options)
    items = read_item_table(source)
    partitions = number_of_partitions(source.rows, options.shard_rows)
    context = spark.sparkContext
    # First stage. Totals are sent to one more partition, which is read before the others.
    timed = len(log_parts(source))
    parts = timed + len(context_parts(source))
    shipped = context.broadcast(dumps(_without_items(source)))
    read = partial(_read_part, shipped, options, partitions, work)
    chunks = context.parallelize(range(parts), parts).flatMap(read)
    chunks = chunks.partitionBy(partitions + 1, int)
    found = context.runJob(chunks, _totals, [partitions])
    totals = [part for _, part in sorted(found, key=lambda record: record[0])]
    tally = _merged_totals(totals, timed, source)
    _log.info(f"read {tally.rows:,} rows, {tally.context:,} of context")
    # Second stage.
    edges = edges_of(source, tally, options)
    rows = np.array([t.tally.rows for t in totals])
    builder = ShardBuilder(source.schema, items, edges, options, source.one_label)
    write = partial(_write_shard, context.broadcast(builder), np.cumsum(rows) - rows, work)
    stats = chunks.mapPartitionsWithIndex(write).treeReduce(_merged_stats)
    if isinstance(stats, str):
        raise BadInput(stats)
    stats.shards.sort(key=lambda shard: shard.file)
    hidden = [s.file for s in stats.shards if not (work / s.file).is_file()]
    if hidden:
        raise BadInput(f"{work}: executors wrote {hidden[:3]}, which are not here; {_SHARED}")
    _log.info(f"wrote {len(stats.shards)} parts")
    return finish(source, work, made_by, tally, builder, stats)


_SHARED = "give an --out on a file system that driver and executors share"


def _without_items(source: LogSource) -> LogSource:
    """Return a source whose item table has only column names, which checks of rows need."""
    if source.items is None:
        return source
    return replace(source, items=ItemSource(source.items.columns, _no_batches))


def _no_batches() -> Iterator[LogBatch]:
    return iter(())


def _read_part(
    shipped: Any, options: PrepareOptions, partitions: int, work: Path, k: int
) -> Iterator[tuple[int, tuple[int, int, bytes | PartTotals]]]:
    """Read and check part `k` of the log on an executor.

    Yields:
        (partition, (k, number of the batch, rows as an Arrow stream)), and the totals of the part
        for partition `partitions`. Row numbers count from the first row of the part.
    """
    from pyspark.cloudpickle import loads

    source: LogSource = loads(shipped.value)
    timed = k < len(log_parts(source))
    part = (*log_parts(source), *context_parts(source))[k]
    totals = PartTotals(Tally())
    try:
        if not work.is_dir():
            raise BadInput(f"{work} is not there on {socket.gethostname()}; {_SHARED}")
        for n, batch in enumerate(part(options.batch_rows, options.on_bad_row)):
            checked = check_log_batch(batch, source, options.on_bad_row, timed)
            totals.first_file = totals.first_file or checked.file
            rows = checked.frame.height
            row = np.arange(rows) + totals.tally.rows if timed else np.full(rows, -1)
            totals.tally.merge(checked.tally)
            frame = checked.frame.with_columns(pl.Series(ROW, row))
            for p, table in by_partition(frame, partitions):
                yield p, (k, n, _to_bytes(table))
    except LigrError as e:
        totals.error = str(e)
    yield partitions, (k, -1, totals)


def _totals(
    records: Iterable[tuple[int, tuple[int, int, bytes | PartTotals]]],
) -> Iterator[tuple[int, PartTotals]]:
    """Yield the number and the totals of each part."""
    for _, (k, _, totals) in records:
        assert isinstance(totals, PartTotals)
        yield k, totals


def _merged_totals(totals: list[PartTotals], timed: int, source: LogSource) -> Tally:
    """Return the totals of the log.

    Raises:
        BadInput: a part has a fault, or `refuse_log` refuses the log.
    """
    tally = Tally()
    for k, part in enumerate(totals):
        if k == timed:
            refuse_log(tally, source, _first_file(totals))
        if part.error:
            raise BadInput(part.error)
        tally.merge(part.tally)
    if timed == len(totals):
        refuse_log(tally, source, _first_file(totals))
    return tally


def _first_file(totals: list[PartTotals]) -> str:
    return next((part.first_file for part in totals if part.first_file), "")


def _write_shard(
    shipped: Any,
    first_row: np.ndarray,
    work: Path,
    p: int,
    records: Iterable[tuple[int, tuple[int, int, bytes]]],
) -> Iterator[ShardStats | str]:
    """Write the shard of partition `p` on an executor, and yield its statistics or an error.

    A task can run more than once at a time, so the file gets its name when it is complete.
    """
    chunks = sorted((value for _, value in records), key=lambda chunk: chunk[:2])
    if not chunks or chunks[0][1] < 0:  # no rows, or the partition of the totals
        return
    rows = pa.concat_tables([_from_bytes(blob, first_row[k]) for k, _, blob in chunks])
    builder: ShardBuilder = shipped.value
    path = shard_path(work, p)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        stats = builder.build(rows, part)
        if stats.shards:
            os.replace(part, path)
    except OSError as e:
        yield f"{path}: cannot be written on {socket.gethostname()} ({e.strerror}); {_SHARED}"
        return
    stats.shards = [replace(shard, file=path.name) for shard in stats.shards]
    yield stats


def _merged_stats(first: ShardStats | str, second: ShardStats | str) -> ShardStats | str:
    """Return the statistics of both, or the error of one of them."""
    if isinstance(first, str):
        return first
    if isinstance(second, str):
        return second
    first.merge(second)
    return first


def _to_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    result: bytes = sink.getvalue().to_pybytes()
    return result


def _from_bytes(blob: bytes, first_row: int) -> pa.Table:
    """Return rows, with row numbers that count from the first row of the log."""
    table = pa.ipc.open_stream(blob).read_all()
    row = table[ROW].to_numpy()
    column = pa.array(np.where(row < 0, row, row + first_row))
    return table.set_column(table.schema.get_field_index(ROW), ROW, column)
