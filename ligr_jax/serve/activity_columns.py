"""Impressions of an activity store with the interface of prepared data (`Records`)."""

import numpy as np

from ligr_jax.data.columns import action_column, feature_column
from ligr_jax.data.item_features import ITEM_ROW, ItemFeatures
from ligr_jax.data.manifest import Manifest
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
