"""Impressions of an activity store with the interface of prepared data (`Records`)."""

from collections.abc import Sequence

import numpy as np

from ligr_jax.config import ModelConfig
from ligr_jax.data.assemble import Assembler
from ligr_jax.data.bags import Bags
from ligr_jax.data.batch import Batch
from ligr_jax.data.columns import action_column, feature_column
from ligr_jax.data.item_features import ITEM_ROW, ItemFeatures
from ligr_jax.data.manifest import Manifest
from ligr_jax.data.packing_plan import PackingPlan
from ligr_jax.serve.activity_layout import Impressions


class StoredColumns:
    """Random access to impressions, for `ligr_jax.data.Assembler`."""

    def __init__(
        self, manifest: Manifest, impressions: Impressions, items: ItemFeatures | None
    ) -> None:
        """
        Args:
            manifest: manifest of the prepared data of the store.
            impressions: the impressions, numbered in order.
            items: the features that are stored once per item, or None.
        """
        self.manifest = manifest
        self._impressions = impressions
        self._items = items

    def locate(self, index: np.ndarray) -> np.ndarray:
        """Return the impression numbers themselves, because there are no shards."""
        return index

    def take(self, column: str, index: np.ndarray) -> np.ndarray:
        """Return the values of a field of the records."""
        result: np.ndarray = self._impressions.records[column][index]
        return result

    def feature(self, name: str, index: np.ndarray) -> np.ndarray:
        """Return the values of a feature that is not a bag."""
        column = feature_column(name)
        if self._items is not None and column in self._items:
            return self._items.take(column, self.take(ITEM_ROW, index))
        return self.take(column, index)

    def bag(self, name: str, index: np.ndarray, size: int) -> np.ndarray:
        """Return the first `size` ids of bags, padded with `MISSING`."""
        column = feature_column(name)
        if self._items is not None and column in self._items:
            return self._items.padded(column, self.take(ITEM_ROW, index), size)
        return self._impressions.bag(column).padded(index, size)

    def label(self, action: str, index: np.ndarray) -> np.ndarray:
        """Return the labels of an action."""
        return self.take(action_column(action), index)


class WindowAssembler:
    """Batches of impressions as the data pipeline makes them, one window per row."""

    def __init__(self, manifest: Manifest, record: np.dtype, items: ItemFeatures | None) -> None:
        """
        Args:
            manifest: manifest of the prepared data of the store.
            record: dtype of a record.
            items: the features that are stored once per item, or None.
        """
        self._manifest, self._record, self._items = manifest, record, items
        self._last: tuple[ModelConfig, Assembler] | None = None

    def __call__(
        self, model: ModelConfig, rows: Sequence[Impressions], targets: np.ndarray, capacity: int
    ) -> Batch:
        """Return a batch.

        Args:
            model: configuration of the model.
            rows: the impressions of each row.
            targets: int64 [B], position of the first target of each row.
            capacity: N, impressions of a row.
        """
        lengths = np.array([len(row) for row in rows], np.int64)
        stop = np.cumsum(lengths)
        start = stop - lengths
        plan = PackingPlan(
            capacity=capacity,
            start=start,
            target=start + targets,
            stop=stop,
            bounds=np.arange(len(rows) + 1),
        )
        # Padding reads impression 0, which an empty batch does not have.
        padding = Impressions(np.zeros(1, self._record), Bags.empty(1))
        impressions = Impressions.concatenate([*rows, padding])
        records = StoredColumns(self._manifest, impressions, self._items)
        # The scales of numbers take longer than a batch, so those of the last model are kept.
        last = self._last
        if last is None or last[0] is not model:
            last = self._last = (model, Assembler(records, plan, model))
        return last[1].over(records, plan)(np.arange(len(plan)))
