"""Random access to the memory-mapped columns of prepared data.

Impressions are numbered over all shards in file order. One integer therefore identifies an
impression, and a slice of integers is a contiguous part of a member's history. Files are mapped and
not read into memory.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ligr_jax.atomic import version_of
from ligr_jax.config.lists import join_list
from ligr_jax.data.bags import Bags
from ligr_jax.data.columns import action_column, feature_column, truth_column
from ligr_jax.data.index import open_batch, open_index
from ligr_jax.data.item_features import ITEM_ROW, ItemFeatures, named_columns, split_columns
from ligr_jax.data.manifest import (
    CONTEXT_TARGETS,
    MANIFEST,
    ColumnStats,
    Manifest,
    SplitStats,
    load_manifest,
    stage_data,
)
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sharded import Located, ShardedColumn, locate
from ligr_jax.store.mirror import local_path


class Records:
    """Prepared data of a directory.

    Attributes:
        manifest: the manifest; its splits are those defined by `edges`, if there are any.
        digest: digest of the manifest file, independent of `edges`.
        offsets: int64 [members + 1]; member m has impressions offsets[m] .. offsets[m + 1].
        counts: int32 [members, 4]: numbers of context, train, validation and test impressions.
        member_ids: int64 [members].
        items: the features that are stored once per item, or None.
    """

    manifest: Manifest

    def __init__(
        self,
        directory: str | Path,
        edges: tuple[int, ...] = (),
        digest: str = "",
        statistics: Mapping[str, ColumnStats] | None = None,
    ) -> None:
        """
        Args:
            directory: output directory of `prepare`.
            edges: four times in milliseconds, which replace the splits of the manifest: start and
                end of train, end of validation, end of test. Statistics of columns do not change.
            digest: digest that the data must have; "" accepts any.
            statistics: statistics of columns that replace those of the manifest: those of the
                training data, if a model is evaluated on other data.

        Raises:
            BadInput: the manifest is absent, a file is missing or damaged, the data have another
                digest, or another process replaced the data at the same time.
        """
        self.directory, self.edges = local_path(directory), edges
        self.statistics = dict(statistics or {})
        stage_data(self.directory)
        path = self.directory / MANIFEST
        version = version_of(path)
        try:
            self._open_all(digest)
        finally:
            # Open files remain readable when `ligr prepare --overwrite` removes them, but files
            # opened before and after it do not belong together.
            if version is not None and version_of(path) != version:
                raise BadInput(
                    f"{self.directory} was prepared again while it was being opened; "
                    "run the command again"
                )
        if self.statistics:
            columns = {**self.manifest.columns, **self.statistics}
            self.manifest = dataclasses.replace(self.manifest, columns=columns)
        if edges:
            if self.manifest.time_is_order:
                raise BadInput(
                    f"data.edges={join_list(edges)}: {self.directory} has no times; prepare it "
                    "again with other --fractions"
                )
            self._split_at(edges)

    def _open_all(self, digest: str) -> None:
        """Map all files of the manifest."""
        self.manifest = load_manifest(self.directory)
        self.digest = self.manifest.digest
        if digest and self.digest != digest:
            raise BadInput(
                f"{self.directory} has digest {self.digest}, but {digest} is expected: the data "
                "were prepared again since; run the command again, or restore the data"
            )
        batches = [self._open(s.file) for s in self.manifest.shards]
        lists = [split_columns(named_columns(_list_columns(b), self.manifest)) for b in batches]
        self._columns = [numbers for numbers, _ in lists]
        self._bags = [bags for _, bags in lists]
        sizes = np.array([s.impressions for s in self.manifest.shards], np.int64)
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        self._sharded: dict[str, ShardedColumn] = {}
        index = open_index(self.directory, self.manifest)
        self.offsets, self.counts, self.member_ids, self._session_ends = index
        file = self.manifest.items
        self.items = ItemFeatures(self.directory / file.file, self.manifest) if file else None

    def __len__(self) -> int:
        """Number of impressions, untimed context included."""
        return int(self._starts[-1])

    def __reduce__(self) -> tuple[type["Records"], tuple[Any, ...]]:
        """Pickle only the path, so that a loader process maps the files itself."""
        return Records, (self.directory, self.edges, self.digest, self.statistics)

    def _split_at(self, edges: tuple[int, ...]) -> None:
        """Replace the splits: `counts`, and their statistics in the manifest.

        Histories are in order of time, so the numbers of impressions between the edges suffice.
        """
        # 0 is before the first edge (context), 1 to 3 are the splits, 4 is after the last edge.
        sizes = np.zeros((len(self.member_ids), 5), np.int32)
        known, positive = np.zeros((2, len(self.manifest.actions), 5), np.int64)
        first = 0
        for columns, shard in zip(self._columns, self.manifest.shards):
            members = slice(first, first + shard.members)
            first += shard.members
            interval = np.searchsorted(np.array(edges), columns["timestamp_ms"], side="right")
            lengths = np.diff(self.offsets[members.start : members.stop + 1])
            cell = np.repeat(5 * np.arange(shard.members), lengths) + interval
            sizes[members] = np.bincount(cell, minlength=5 * shard.members).reshape(-1, 5)
            is_target = columns["weight"] > 0
            for a, action in enumerate(self.manifest.actions):
                labels = columns[action_column(action)]
                known[a] += np.bincount(interval[(labels >= 0) & is_target], minlength=5)
                positive[a] += np.bincount(interval[(labels == 1) & is_target], minlength=5)
        self.counts = sizes[:, :4]
        stats = {
            name: SplitStats(
                start_ms=edges[k - 1],
                end_ms=edges[k],
                impressions=int(sizes[:, k].sum(dtype=np.int64)),
                members=int((sizes[:, k] > 0).sum()),
                positive_rate={
                    action: int(positive[a, k]) / int(known[a, k])
                    for a, action in enumerate(self.manifest.actions)
                    if known[a, k]
                },
            )
            for k, name in enumerate(self.manifest.splits, 1)
        }
        counts = dict(self.manifest.counts)
        if edges[0] > self.manifest.splits["train"].start_ms:
            # A train split that starts later has timed rows before it, which are not targets.
            counts.pop(CONTEXT_TARGETS, None)
        self.manifest = dataclasses.replace(
            self.manifest, splits=stats, counts=counts, split_per_member=False
        )

    def locate(self, index: np.ndarray) -> Located:
        """Find the shards of impressions once, for several reads of the same impressions.

        Args:
            index: int array of any shape, impression numbers.

        Raises:
            IndexError: there is no such impression.
        """
        return locate(index, self._starts)

    def feature(self, name: str, index: np.ndarray | Located | None = None) -> np.ndarray:
        """Return the values of a feature that is not a bag.

        Args:
            name: name of the feature.
            index: int array of any shape, impression numbers, or the result of `locate`; None
                stands for all impressions.

        Returns:
            int64 (categorical) or float32 (numeric) of the shape of `index`, or float32
            [*index.shape, W] (vector).
        """
        return self._at(feature_column(name), index)

    def ids(self, name: str) -> Iterator[np.ndarray]:
        """Yield all stored ids of a categorical feature or a bag, in parts and in any order."""
        column = feature_column(name)
        if self.items is not None and column in self.items.numbers:
            yield self.items.numbers[column]
        elif self.items is not None and column in self.items.bags:
            yield self.items.bags[column].values
        else:
            for numbers, bags in zip(self._columns, self._bags):
                yield bags[column].values if column in bags else numbers[column]

    def locate_id(self, name: str, value: np.int64) -> str:
        """Return file, column and position of the first occurrence of an id, for messages.

        Args:
            name: a categorical feature.
            value: an id that `ids` yields.

        Raises:
            KeyError: the feature does not have the id.
        """
        column = feature_column(name)
        if self.items is not None and column in self.items.numbers:
            assert self.manifest.items is not None
            item = self.items.ids[self.items.numbers[column] == value][0]
            return f"{self.directory / self.manifest.items.file}, column {name!r}, item {item},"
        for s, shard in enumerate(self.manifest.shards):
            matches = np.flatnonzero(self._columns[s][column] == value)
            if matches.size:
                impression = int(self._starts[s] + matches[0])
                member = int(np.searchsorted(self.offsets, impression, side="right")) - 1
                ends = self.offsets[member] + np.cumsum(self.counts[member])
                part = int(np.searchsorted(ends, impression, side="right"))
                splits = ("untimed context rows", *(f"{k} split" for k in self.manifest.splits))
                split = splits[part] if part < len(splits) else "rows after the last split"
                return (
                    f"{self.directory / shard.file}, column {name!r}, member "
                    f"{self.member_ids[member]}, in the {split},"
                )
        raise KeyError(f"{self.directory} has no {name}={value}")

    def label(self, action: str, index: np.ndarray | Located | None = None) -> np.ndarray:
        """Return the int8 labels of an action: 1, 0 or `UNKNOWN`; `index` as in `feature`."""
        return self._at(action_column(action), index)

    def truth(self, action: str, index: np.ndarray | Located | None = None) -> np.ndarray:
        """Return the float32 true probabilities of an action, which only some logs have."""
        return self._at(truth_column(action), index)

    def _at(self, column: str, index: np.ndarray | Located | None) -> np.ndarray:
        if index is None and (self.items is None or column not in self.items):
            return self.column(column)
        return self.take(column, np.arange(len(self)) if index is None else index)

    def take(self, column: str, index: np.ndarray | Located) -> np.ndarray:
        """Return the values of a stored column, e.g. `session`.

        Args:
            column: stored name.
            index: int array of any shape, impression numbers, or the result of `locate`.
        """
        located = index if isinstance(index, Located) else self.locate(index)
        if self.items is not None and column in self.items:
            return self.items.take(column, self.take(ITEM_ROW, located))
        first = self._columns[0][column]
        if first.ndim == 1:
            return self._numbers(column).take(located)
        out = np.empty(located.index.shape + first.shape[1:], first.dtype)
        for s, in_shard in located.by_shard():
            rows = located.index[in_shard] - self._starts[s]
            out[in_shard] = self._columns[s][column].take(rows, axis=0)
        return out

    def _numbers(self, column: str) -> ShardedColumn:
        """Return a column of numbers over all shards."""
        if column not in self._sharded:
            parts = [columns[column] for columns in self._columns]
            self._sharded[column] = ShardedColumn(parts, self._starts)
        return self._sharded[column]

    def bag(self, name: str, index: np.ndarray | Located, size: int) -> np.ndarray:
        """Return the first `size` ids of each bag, padded with `MISSING`.

        Args:
            name: name of the feature.
            index: int array of any shape, impression numbers, or the result of `locate`.
            size: the largest number of ids of a bag that are returned.

        Returns:
            int64 [*index.shape, size].
        """
        located = index if isinstance(index, Located) else self.locate(index)
        column = feature_column(name)
        if self.items is not None and column in self.items:
            return self.items.padded(column, self.take(ITEM_ROW, located), size)
        out = np.empty((*located.index.shape, size), np.int64)
        for s, in_shard in located.by_shard():
            rows = located.index[in_shard] - self._starts[s]
            out[in_shard] = self._bags[s][column].padded(rows, size)
        return out

    def bags(self, name: str, index: np.ndarray) -> Bags:
        """Return the whole bags of impressions of one shard.

        Args:
            name: name of a feature that is not in the item table.
            index: int64 [n], impression numbers, at least one.
        """
        shard = int(np.searchsorted(self._starts, index[0], side="right")) - 1
        return self._bags[shard][feature_column(name)][index - self._starts[shard]]

    def column(self, name: str) -> np.ndarray:
        """Return all values of a stored column; this copies if there are several shards."""
        parts = [c[name] for c in self._columns]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def session_ends(self) -> np.ndarray:
        """Return 0 and the impression number after each session, int64, increasing."""
        return self._session_ends

    def train_counts(self, name: str, values: np.ndarray) -> np.ndarray:
        """Count values of a categorical feature in the train split.

        Args:
            name: name of the feature.
            values: int64 array of any shape, the values to count.

        Returns:
            int64 of the shape of `values`.
        """
        if not values.size:
            return np.zeros(values.shape, np.int64)
        distinct, inverse = np.unique(values, return_inverse=True)
        counts = np.zeros(len(distinct), np.int64)
        for ids in self._train_values(feature_column(name)):
            index = np.minimum(np.searchsorted(distinct, ids), len(distinct) - 1)
            counts += np.bincount(index[distinct[index] == ids], minlength=len(distinct))
        return counts[inverse].reshape(values.shape)

    def item_train_counts(self) -> np.ndarray:
        """Count the train impressions of each row of the item table.

        Returns:
            int64 [items + 1]; the last element counts impressions without a row.
        """
        rows = len(self.items) if self.items is not None else 0
        counts = np.zeros(rows + 1, np.int64)
        for row in self._train_values(ITEM_ROW):
            counts += np.bincount(np.where(row < 0, rows, row), minlength=rows + 1)
        return counts

    def _train_values(self, column: str) -> Iterator[np.ndarray]:
        """Yield the values of a column in the train split, shard by shard."""
        first = 0
        for columns, shard in zip(self._columns, self.manifest.shards):
            members = slice(first, first + shard.members)
            first += shard.members
            # Every history consists of context, train and later impressions, in this order.
            context, train = self.counts[members, 0], self.counts[members, 1]
            length = np.diff(self.offsets)[members]
            runs = np.stack([context, train, length - context - train], 1)
            in_train = np.repeat(np.tile([False, True, False], shard.members), runs.ravel())
            if self.items is not None and column in self.items:
                yield self.items.take(column, columns[ITEM_ROW][in_train])
            else:
                yield columns[column][in_train]

    def _open(self, file: str) -> pa.RecordBatch:
        """Map a file of one record batch."""
        return open_batch(self.directory / file)


def _list_columns(batch: pa.RecordBatch) -> dict[str, pa.Array]:
    """Return the values of all list columns, concatenated over members."""
    return {f.name: batch[f.name].values for f in batch.schema if pa.types.is_list(f.type)}
