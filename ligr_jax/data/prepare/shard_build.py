"""A shard and its statistics from the rows of a partition, on any machine."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from ligr_jax.data.bags import Bags
from ligr_jax.data.columns import action_column, feature_column, truth_column
from ligr_jax.data.manifest import Shard
from ligr_jax.data.prepare.items import ItemTable
from ligr_jax.data.prepare.measure import TRAIN, ColumnMeasure, HistoryMeasure, SplitMeasure
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.prepare.partition import ROW
from ligr_jax.data.prepare.shards import (
    Histories,
    column_array,
    column_bags,
    sort_histories,
    write_shard,
)
from ligr_jax.data.schema import RANDOM, TIME, WEIGHT, LogSchema
from ligr_jax.digests import digest_file


def shard_path(directory: Path, partition: int) -> Path:
    """Return the file of a partition's shard, before the shards are numbered."""
    return directory / f"shard-{partition:05d}.arrow"


@dataclass
class ShardStats:
    """Statistics of shards.

    Attributes:
        columns: statistics of the features, by name.
        splits: impressions, members and labels of the splits.
        histories: gaps and sessions of the members.
        counts: numbers of kept and dropped rows.
        shards: entries of the manifest, with the names of `shard_path`.
    """

    columns: Mapping[str, ColumnMeasure]
    splits: SplitMeasure
    histories: HistoryMeasure = field(default_factory=HistoryMeasure)
    counts: Counter[str] = field(default_factory=Counter)
    shards: list[Shard] = field(default_factory=list)

    @classmethod
    def empty(cls, schema: LogSchema) -> "ShardStats":
        """Return the statistics of no shard."""
        columns = {name: ColumnMeasure(c) for name, c in schema.columns.items()}
        return cls(columns, SplitMeasure(schema.actions))

    def merge(self, later: "ShardStats") -> None:
        """Add the statistics of the shards that follow."""
        for name, measure in self.columns.items():
            measure.merge(later.columns[name])
        self.splits.merge(later.splits)
        self.histories.merge(later.histories)
        self.counts.update(later.counts)
        self.shards += later.shards


@dataclass(frozen=True)
class ShardBuilder:
    """Builder of shards.

    Attributes:
        schema: schema of the log.
        items: its item table.
        edges: start and end times of the splits, milliseconds.
        options: options of `prepare`.
        one_label: whether the last row of a member, item and time has the labels of all of them.
    """

    schema: LogSchema
    items: ItemTable | None
    edges: tuple[int, ...]
    options: PrepareOptions
    one_label: bool = False

    def build(self, rows: pa.Table, path: Path) -> ShardStats:
        """Write the shard of a partition, unless no member has a row to keep.

        Args:
            rows: the partition.
            path: file to write.
        """
        stats = ShardStats.empty(self.schema)
        one_label = self.schema.actions if self.one_label else ()
        kept = sort_histories(rows, self.edges, self.options, self.schema.time_is_order, one_label)
        stats.counts.update({**kept.counts, "members": len(kept.first)})
        if not len(kept.first):
            return stats
        number = column_array(rows, ROW)[kept.order]
        write_shard(path, kept, self._list_columns(rows, kept, number, stats))
        stats.splits.add(kept)
        stats.histories.add(kept, number)
        entry = Shard(path.name, len(kept.first), len(kept.order), digest_file(path))
        stats.shards.append(entry)
        return stats

    def _list_columns(
        self, rows: pa.Table, kept: Histories, number: np.ndarray, stats: "ShardStats"
    ) -> Iterator[tuple[str, np.ndarray | Bags]]:
        """Yield the list columns of a shard in order, and add them to the statistics.

        Args:
            rows: the partition.
            kept: rows of the partition that the shard has, in their order.
            number: int64 [N], their row numbers in the log.
            stats: receives the statistics.
        """
        schema, items = self.schema, self.items
        # Columns of the format.
        train = kept.split == TRAIN
        yield TIME, kept.time_ms
        yield "session", kept.session
        weight = column_array(rows, WEIGHT)[kept.order]
        yield WEIGHT, weight
        yield RANDOM, column_array(rows, RANDOM)[kept.order]
        # Labels. Rows without weight are history and no targets.
        counted = np.where(weight > 0, kept.split, np.int8(-1))
        if (counted < kept.split).any():
            stats.counts["history_only"] += int((counted < kept.split).sum())
        for action in schema.actions:
            labels = column_array(rows, action_column(action))[kept.order]
            stats.splits.add_labels(action, labels, counted)
            yield action_column(action), labels
        # Features of the log, and scalar features of the item table joined by `item_id`. Vectors
        # and bags of the item table are only measured here; they stay in items.arrow.
        if items:
            item = items.find(column_array(rows, feature_column("item_id"))[kept.order])
            stats.counts["without_item"] += int((item < 0).sum())
        for name, measure in stats.columns.items():
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
