"""The item table: features stored once per item and joined to impressions by `item_id`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ligr_jax.data.bags import Bags
from ligr_jax.data.columns import feature_column
from ligr_jax.data.manifest import MISSING, Shard
from ligr_jax.data.prepare.shards import to_arrow, write_batch
from ligr_jax.data.prepare.sorting import find_sorted
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.source import ItemSource, LogSource
from ligr_jax.data.sources.validate import canonical_items
from ligr_jax.digests import digest_file

Parts = list[dict[str, Any]]  # columns by name, for consecutive batches of rows


@dataclass(frozen=True)
class ItemTable:
    """Features of items, sorted by item id.

    Attributes:
        ids: int64 [items], increasing.
        scalars: categorical (int64) and numeric (float32) features, [items] each.
        vectors: float32 [items, W] each, zeros if an item has none.
        bags: one bag per item each.
        has_vectors: bool [items].
    """

    ids: np.ndarray
    scalars: Mapping[str, np.ndarray]
    vectors: Mapping[str, np.ndarray]
    bags: Mapping[str, Bags]
    has_vectors: np.ndarray

    @cached_property
    def row(self) -> np.ndarray:
        """Row of each item in items.arrow, int32 [items]; -1 for items without vectors and ids."""
        kept = self.has_vectors if self.vectors else np.zeros(len(self.ids), bool)
        for bags in self.bags.values():
            kept = kept | (bags.lengths > 0)
        return np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32)

    def find(self, item_ids: np.ndarray) -> np.ndarray:
        """Return the index of each item in the table, or -1."""
        return find_sorted(self.ids, item_ids)

    def scalar(self, name: str, index: np.ndarray) -> np.ndarray:
        """Return a scalar feature of items.

        Args:
            name: name of the feature.
            index: int [N], indices of items; the value of index -1 is missing.
        """
        values = self.scalars[name]
        missing = MISSING if values.dtype == np.int64 else np.float32(np.nan)
        result: np.ndarray = np.append(values, np.array([missing], values.dtype))[index]
        return result

    def write(self, path: Path) -> Shard | None:
        """Write vectors and bags to a file.

        Returns:
            The entry of the manifest, or None if the table has neither vectors nor bags.
        """
        if not self.vectors and not self.bags:
            return None
        kept = self.row >= 0
        columns: dict[str, np.ndarray | Bags] = {"item_id": self.ids}
        columns |= {feature_column(k): v for k, v in self.vectors.items()}
        columns |= {feature_column(k): v for k, v in self.bags.items()}
        # Vectors dominate memory, so they are copied only if items are left out.
        arrays = {k: to_arrow(v if kept.all() else v[kept]) for k, v in columns.items()}
        write_batch(pa.RecordBatch.from_pydict(arrays), path)
        return Shard(path.name, int(kept.sum()), 0, digest_file(path))


def read_item_table(source: LogSource) -> ItemTable | None:
    """Read, check and sort the item table of a log.

    The table is read in batches; sorting needs memory for two copies of the feature columns.

    Returns:
        The table, or None if the log has no item table.

    Raises:
        BadInput: a row is not valid, or an item occurs twice.
    """
    if source.items is None:
        return None
    names = source.items.columns
    columns = {k: c for k, c in source.schema.columns.items() if k in names and k != "item_id"}
    parts: Parts = []
    present: list[np.ndarray] = []
    for batch in source.items.batches():
        part, has = canonical_items(batch, source, columns)
        parts.append(part)
        present.append(has)
    ids = _concatenated(parts, "item_id")
    order = np.argsort(ids, kind="stable")
    _refuse_repeated(ids, order, source.items)
    has_vectors = np.concatenate(present)[order]
    scalars: dict[str, np.ndarray] = {}
    vectors: dict[str, np.ndarray] = {}
    bags: dict[str, Bags] = {}
    for name, column in columns.items():
        if column.kind == "bag":
            bags[name] = Bags.concatenate([part.pop(name) for part in parts])[order]
        elif column.kind == "vector":
            vectors[name] = _sorted_vectors(parts, name, order)
            # An item that lacks one of its vectors counts as an item without vectors.
            vectors[name][~has_vectors] = 0
        else:
            scalars[name] = _concatenated(parts, name)[order]
    return ItemTable(ids[order], scalars, vectors, bags, has_vectors)


def refuse_unmatched(source: LogSource) -> None:
    """Raise `BadInput` for a log whose items are all absent from the item table."""
    assert source.items is not None
    table, log = next(source.items.batches()), next(source.batches(1024, "skip"))
    in_table, in_log = (b.frame["item_id"].drop_nulls().head(3).to_list() for b in (table, log))
    raise BadInput(
        f"no item_id of the log is in the item table: {log.file} has e.g. {in_log}, {table.file} "
        f"has e.g. {in_table}; write the ids of both in the same form, or omit the item table"
    )


def _concatenated(parts: Parts, name: str) -> np.ndarray:
    """Remove a column of numbers from the parts and concatenate it."""
    return np.concatenate([part.pop(name) for part in parts])


def _sorted_vectors(parts: Parts, name: str, order: np.ndarray) -> np.ndarray:
    """Remove a column of vectors from the parts and sort it, freeing each part after its copy."""
    position = np.empty_like(order)
    position[order] = np.arange(len(order))
    out = np.empty((len(order), parts[0][name].shape[1]), np.float32)
    first = 0
    for part in parts:
        rows = part.pop(name)
        out[position[first : first + len(rows)]] = rows
        first += len(rows)
    return out


def _refuse_repeated(ids: np.ndarray, order: np.ndarray, items: ItemSource) -> None:
    """Raise `BadInput` for the first id that occurs twice."""
    repeated = np.flatnonzero(np.diff(ids[order]) == 0)
    if not len(repeated):
        return
    first, second = order[repeated[0] : repeated[0] + 2].tolist()
    for batch in items.batches():
        if second < batch.frame.height:
            break
        second -= batch.frame.height
    raise BadInput(
        f"{batch.file}, row {batch.row_number(second)}, column 'item_id': value "
        f"{batch.frame['item_id'][second]!r} occurs twice (first in row {1 + first}); keep one row "
        "per item"
    )
