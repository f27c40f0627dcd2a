"""Preparation of a log in two passes with bounded memory.

The first pass reads the log once, checks every row and distributes the rows over partitions of
members. The second pass sorts one partition at a time and writes it as a shard. The output is a
pure function of the bytes of the input and of the options.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ligr_jax.data.bags import Bags
from ligr_jax.data.columns import action_column, feature_column, truth_column
from ligr_jax.data.manifest import Manifest, Shard, SplitStats
from ligr_jax.data.prepare.items import read_item_table, refuse_unmatched
from ligr_jax.data.prepare.measure import TRAIN, ColumnMeasure, SplitMeasure
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.prepare.partition import ROW, Spill, number_of_partitions, partition_log
from ligr_jax.data.prepare.publish import published
from ligr_jax.data.prepare.shards import (
    Histories,
    column_array,
    column_bags,
    read_partition,
    sort_histories,
    write_shard,
)
from ligr_jax.data.prepare.splits import split_edges
from ligr_jax.data.prepare.summary import LogSummary, save_log_summary
from ligr_jax.data.schema import RANDOM, TIME, WEIGHT, BadInput
from ligr_jax.data.sources.source import LogSource
from ligr_jax.data.sources.validate import check_roles
from ligr_jax.digests import digest_file

_log = logging.getLogger(__name__)


def prepare(
    source: LogSource,
    out: str | Path,
    options: PrepareOptions | None = None,
) -> Manifest:
    """Prepare a log.

    A run that fails writes no manifest and does not change an earlier output.

    Args:
        source: the log.
        out: output directory. An output of the same source and options is returned unchanged.
        options: options; default: `PrepareOptions()`.

    Returns:
        The manifest of the output.

    Raises:
        BadInput: the log is not valid, the output has another source or other options (without
            `overwrite`), or the directory cannot be written.
    """
    options = options or PrepareOptions()

    def build(work: Path, made_by: Mapping[str, Any]) -> Manifest:
        return Build(source, options, work).run(made_by)

    made_by = {**source.description, "options": options.description()}
    return published(Path(out), made_by, build, options.overwrite)


class Build:
    """One run of the two passes, which writes the files of the manifest to a directory."""

    def __init__(self, source: LogSource, options: PrepareOptions, work: Path) -> None:
        self.source, self.options, self.work = source, options, work
        check_roles(source)
        self.items = read_item_table(source)
        self.columns = {k: ColumnMeasure(c) for k, c in source.schema.columns.items()}
        self.splits = SplitMeasure(source.schema.actions)
        self.counts: Counter[str] = Counter()
        self.summary = LogSummary(source)

    def run(self, made_by: Mapping[str, Any]) -> Manifest:
        """Read the log and write all files except the manifest.

        Args:
            made_by: `source` of the manifest.
        """
        source, options = self.source, self.options
        begun = time.monotonic()
        partitions = number_of_partitions(source.rows, options.shard_rows)
        with Spill(self.work, partitions) as spill:
            tally = partition_log(source, spill, options.batch_rows, options.on_bad_row)
        seconds = time.monotonic() - begun
        _log.info(f"read {tally.rows:,} rows, {tally.context:,} of context ({seconds:.1f} s)")
        self.counts.update(rows=tally.rows, skipped=tally.skipped)
        edges = split_edges(tally, options.splits, options.fractions)
        shards = self._write_shards(spill, edges)
        splits = self.splits.stats(edges)
        _refuse_empty(splits)
        if self.items and self.counts["without_item"] == sum(s.impressions for s in shards):
            refuse_unmatched(source)
        manifest = Manifest(
            actions=source.schema.actions,
            columns={k: c.stats() for k, c in self.columns.items()},
            splits=splits,
            shards=shards,
            counts=dict(self.counts),
            truth=source.schema.truth,
            items=self.items.write(self.work / "items.arrow") if self.items else None,
            source=made_by,
            notes=source.schema.notes,
        )
        save_log_summary(self.summary.content(manifest, tally), self.work)
        return manifest

    def _write_shards(self, spill: Spill, edges: tuple[int, ...]) -> tuple[Shard, ...]:
        """Write a shard for each partition with members, and return the shards in order."""
        written: list[Shard] = []
        for p in range(spill.partitions):
            if not spill.rows[p]:
                continue
            rows = read_partition(spill.path(p), spill.rows[p])
            kept = sort_histories(rows, edges, self.options.session_gap_ms)
            self.counts.update({**kept.counts, "members": len(kept.first)})
            if len(kept.first):
                path = self.work / f"members-{len(written):05d}.arrow"
                write_shard(path, kept, self._list_columns(rows, kept))
                self.splits.add(kept)
                self.summary.add(kept)
                written.append(
                    Shard(path.name, len(kept.first), len(kept.order), digest_file(path))
                )
                _log.info(f"wrote part {p + 1} of {spill.partitions}: {len(kept.order):,} rows")
            del rows, kept
            spill.path(p).unlink()
        return tuple(self._renamed(s, k, len(written)) for k, s in enumerate(written))

    def _renamed(self, shard: Shard, k: int, of: int) -> Shard:
        """Rename a shard after the number of shards is known."""
        name = f"members-{k:05d}-of-{of:05d}.arrow"
        (self.work / shard.file).rename(self.work / name)
        return Shard(name, shard.members, shard.impressions, shard.xxh64)

    def _list_columns(
        self, rows: pa.Table, kept: Histories
    ) -> Iterator[tuple[str, np.ndarray | Bags]]:
        """Yield the list columns of a shard in order, and add them to the statistics.

        Args:
            rows: the partition.
            kept: rows of the partition that the shard has, in their order.
        """
        schema, items = self.source.schema, self.items
        # Columns of the format.
        number, train = column_array(rows, ROW)[kept.order], kept.split == TRAIN
        yield TIME, kept.time_ms
        yield "session", kept.session
        for name in (WEIGHT, RANDOM):
            yield name, column_array(rows, name)[kept.order]
        # Labels.
        for action in schema.actions:
            labels = column_array(rows, action_column(action))[kept.order]
            self.splits.add_labels(action, labels, kept.split)
            yield action_column(action), labels
        # Features of the log, and scalar features of the item table joined by `item_id`. Vectors
        # and bags of the item table are only measured here; they stay in items.arrow.
        if items:
            item = items.find(column_array(rows, feature_column("item_id"))[kept.order])
            self.counts["without_item"] += int((item < 0).sum())
        for name, measure in self.columns.items():
            if items and name in items.vectors:
                measure.add_vectors(np.append(items.has_vectors, False)[item], train)
                continue
            if items and name in items.bags:
                measure.add_bags(items.bags[name], item, train)
                continue
            if measure.column.kind == "bag":
                bags = column_bags(rows, feature_column(name))[kept.order]
                measure.add_bags(bags, np.arange(len(bags)), train)
                yield feature_column(name), bags
                continue
            if items and name in items.scalars:
                values = items.scalar(name, item)
            else:
                values = column_array(rows, feature_column(name))[kept.order]
            measure.add(values, train, number)
            yield feature_column(name), values
        if items and (items.vectors or items.bags):
            yield "item_row", np.append(items.row, np.int32(-1))[item]
        if schema.truth:
            for name in map(truth_column, schema.actions):
                yield name, column_array(rows, name)[kept.order]


def _refuse_empty(splits: Mapping[str, SplitStats]) -> None:
    """Raise `BadInput` for an empty split, unless it starts and ends at the same time."""
    for name, split in splits.items():
        if split.impressions == 0 and split.start_ms < split.end_ms:
            raise BadInput(
                f"the {name} split, {split.start_ms} <= timestamp_ms < {split.end_ms}, has no "
                "impressions; move its ends, or set both ends to the same time for an empty split"
            )
