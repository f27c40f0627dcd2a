"""The two passes of `prepare`, from a source to finished files in a working directory."""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ligr_jax.data.bags import Bags
from ligr_jax.data.columns import action as action_column
from ligr_jax.data.columns import feature, truth
from ligr_jax.data.manifest import Manifest, Shard, SplitStats
from ligr_jax.data.prepare.items import item_table, refuse_unmatched
from ligr_jax.data.prepare.measure import TRAIN, ColumnMeasure, SplitMeasure
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.prepare.partition import ROW, Spill, number_of_partitions, partition_log
from ligr_jax.data.prepare.shards import (
    Histories,
    bag_column,
    column,
    histories,
    read_partition,
    write_shard,
)
from ligr_jax.data.prepare.splits import split_edges
from ligr_jax.data.prepare.understood import Understood, save_understood
from ligr_jax.data.schema import RANDOM, TIME, WEIGHT, BadInput
from ligr_jax.data.sources.source import Source
from ligr_jax.data.sources.validate import check_roles
from ligr_jax.digests import digest_file

_log = logging.getLogger(__name__)


class Build:
    """One run of the two passes; `run` leaves the shards of the manifest in `work`."""

    def __init__(self, source: Source, options: PrepareOptions, work: Path) -> None:
        self.source, self.options, self.work = source, options, work
        check_roles(source)
        self.items = item_table(source)
        self.columns = {k: ColumnMeasure(c) for k, c in source.schema.columns.items()}
        self.splits = SplitMeasure(source.schema.actions)
        self.counts: Counter[str] = Counter()
        self.understood = Understood(source)

    def run(self, made_by: Mapping[str, Any]) -> Manifest:
        """made_by: the manifest's `source`."""
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
        save_understood(self.understood.content(manifest, tally), self.work)
        return manifest

    def _write_shards(self, spill: Spill, edges: tuple[int, ...]) -> tuple[Shard, ...]:
        """A shard of each partition that has members left, named by the number of shards."""
        written: list[Shard] = []
        for p in range(spill.partitions):
            if not spill.rows[p]:
                continue
            rows = read_partition(spill.path(p), spill.rows[p])
            kept = histories(rows, edges, self.options.session_gap_ms)
            self.counts.update({**kept.counts, "members": len(kept.first)})
            if len(kept.first):
                path = self.work / f"members-{len(written):05d}.arrow"
                write_shard(path, kept, self._list_columns(rows, kept))
                self.splits.add(kept)
                self.understood.add(kept)
                written.append(
                    Shard(path.name, len(kept.first), len(kept.order), digest_file(path))
                )
                _log.info(f"wrote part {p + 1} of {spill.partitions}: {len(kept.order):,} rows")
            del rows, kept
            spill.path(p).unlink()
        return tuple(self._renamed(s, k, len(written)) for k, s in enumerate(written))

    def _renamed(self, shard: Shard, k: int, of: int) -> Shard:
        name = f"members-{k:05d}-of-{of:05d}.arrow"
        (self.work / shard.file).rename(self.work / name)
        return Shard(name, shard.members, shard.impressions, shard.xxh64)

    def _list_columns(
        self, rows: pa.Table, kept: Histories
    ) -> Iterator[tuple[str, np.ndarray | Bags]]:
        """The list columns of a shard in order, each measured on its way."""
        schema, items = self.source.schema, self.items
        number, train = column(rows, ROW)[kept.order], kept.split == TRAIN
        yield TIME, kept.time_ms
        yield "session", kept.session
        for name in (WEIGHT, RANDOM):
            yield name, column(rows, name)[kept.order]
        for action in schema.actions:
            labels = column(rows, action_column(action))[kept.order]
            self.splits.add_labels(action, labels, kept.split)
            yield action_column(action), labels
        if items:
            at = items.find(column(rows, feature("item_id"))[kept.order])
            self.counts["without_item"] += int((at < 0).sum())
        for name, measure in self.columns.items():
            if items and name in items.vectors:
                measure.add_vectors(np.append(items.has_vectors, False)[at], train)
                continue
            if items and name in items.bags:
                measure.add_bags(items.bags[name], at, train)
                continue
            if measure.column.kind == "bag":
                bags = bag_column(rows, feature(name))[kept.order]
                measure.add_bags(bags, np.arange(len(bags)), train)
                yield feature(name), bags
                continue
            if items and name in items.scalars:
                values = items.scalar(name, at)
            else:
                values = column(rows, feature(name))[kept.order]
            measure.add(values, train, number)
            yield feature(name), values
        if items and (items.vectors or items.bags):
            yield "item_row", np.append(items.row, np.int32(-1))[at]
        if schema.truth:
            for name in map(truth, schema.actions):
                yield name, column(rows, name)[kept.order]


def _refuse_empty(splits: Mapping[str, SplitStats]) -> None:
    """An empty split is meant where it starts as it ends, and an accident elsewhere."""
    for name, split in splits.items():
        if split.impressions == 0 and split.start_ms < split.end_ms:
            raise BadInput(
                f"the {name} split, {split.start_ms} <= timestamp_ms < {split.end_ms}, has no "
                "impressions; move its ends, or give both ends the same time if that is meant"
            )
