"""Features that prepared data store once per item: vectors, bags and semantic ids."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from ligr_jax.data.bags import Bags
from ligr_jax.data.columns import feature_column, stored_name
from ligr_jax.data.index import open_batch
from ligr_jax.data.manifest import MISSING, Manifest

ITEM_ROW = "item_row"  # column of impressions: row of the item table, or -1


class ItemFeatures:
    """The item table of prepared data, mapped into memory.

    Attributes:
        table: the file, one row per item in order of `item_id`.
        ids: int64 [items], increasing.
        numbers: vectors (float32 [items, W]) and ids (int64 [items]) by stored column.
        bags: bags by stored column.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        """
        Args:
            path: file of the item table.
            manifest: manifest of its data.

        Raises:
            BadInput: the file is missing or damaged.
        """
        self.table = open_batch(path)
        columns = {n: self.table[n] for n in self.table.schema.names if n != "item_id"}
        named = named_columns(columns, manifest)
        self.ids: np.ndarray = self.table["item_id"].to_numpy()
        self.numbers, self.bags = split_columns(named)

    def __contains__(self, column: str) -> bool:
        """Return whether the table has a stored column, e.g. `feature:content`."""
        return column in self.numbers or column in self.bags

    def __len__(self) -> int:
        """Number of items."""
        return len(self.ids)

    def find(self, item_ids: np.ndarray) -> np.ndarray:
        """Return the row of each item (int64 array of any shape), int32; -1 if it has none."""
        if not len(self.ids):
            return np.full(item_ids.shape, -1, np.int32)
        row = np.minimum(np.searchsorted(self.ids, item_ids), len(self.ids) - 1)
        return np.where(self.ids[row] == item_ids, row, -1).astype(np.int32)

    def take(self, column: str, row: np.ndarray) -> np.ndarray:
        """Return vectors or ids of items.

        Args:
            column: stored column in `numbers`.
            row: int array of any shape, rows of the table. Row -1 has zeros or `MISSING`.
        """
        values = self.numbers[column]
        out = values.take(np.maximum(row, 0), axis=0)
        missing = row < 0
        if missing.any():
            out[missing] = MISSING if values.dtype == np.int64 else 0
        result: np.ndarray = out
        return result

    def padded(self, column: str, row: np.ndarray, size: int) -> np.ndarray:
        """Return the first `size` ids of the bags of items, padded with `MISSING`.

        Args:
            column: stored column in `bags`.
            row: int array of any shape, rows of the table. Row -1 has no ids.
            size: the most ids of a bag that are returned.

        Returns:
            int64 [*row.shape, size].
        """
        out = np.full((*row.shape, size), MISSING)
        out[row >= 0] = self.bags[column].padded(row[row >= 0], size)
        return out


def item_columns(features: ItemFeatures | None, manifest: Manifest) -> list[str]:
    """Return the names of the features that are stored per item."""
    if features is None:
        return []
    return [name for name in manifest.columns if feature_column(name) in features]


def named_columns(columns: Mapping[str, pa.Array], manifest: Manifest) -> dict[str, pa.Array]:
    """Return columns of a file under their names in the current format version."""
    renamed = {stored_name(column, manifest.version): column for column in manifest.user_columns}
    return {renamed.get(name, name): array for name, array in columns.items()}


def split_columns(
    columns: Mapping[str, pa.Array],
) -> tuple[dict[str, np.ndarray], dict[str, Bags]]:
    """Return numbers and vectors, and bags, as views of a mapped file."""
    is_bag = {name: pa.types.is_large_list(array.type) for name, array in columns.items()}
    numbers = {name: _values(array) for name, array in columns.items() if not is_bag[name]}
    bags = {name: Bags.from_arrow(array) for name, array in columns.items() if is_bag[name]}
    return numbers, bags


def _values(array: pa.Array) -> np.ndarray:
    if pa.types.is_fixed_size_list(array.type):
        vectors: np.ndarray = array.values.to_numpy().reshape(-1, array.type.list_size)
        return vectors
    numbers: np.ndarray = array.to_numpy()
    return numbers
