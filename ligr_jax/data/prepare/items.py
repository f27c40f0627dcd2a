"""The item table: features of items kept once, joined to impressions by `item_id`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from ligr_jax.data.bags import Bags
from ligr_jax.data.manifest import MISSING, Shard
from ligr_jax.data.prepare.shards import arrow, write_batch
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.files import digest_file
from ligr_jax.data.sources.source import Source
from ligr_jax.data.sources.validate import canonical_items


@dataclass(frozen=True)
class ItemTable:
    """Items sorted by id.

    ids: int64 [items], increasing.
    scalars: categorical (int64) and numeric (float32) features, [items] each.
    vectors: float32 [items, width] each, zeros where an item has none.
    bags: bags of ids, one per item each.
    has_vectors: bool [items].
    row: int32 [items], row of items.arrow, -1 where an item has neither vectors nor ids in a bag.
    """

    ids: np.ndarray
    scalars: Mapping[str, np.ndarray]
    vectors: Mapping[str, np.ndarray]
    bags: Mapping[str, Bags]
    has_vectors: np.ndarray

    @cached_property
    def row(self) -> np.ndarray:
        kept = self.has_vectors if self.vectors else np.zeros(len(self.ids), bool)
        for bags in self.bags.values():
            kept = kept | (bags.lengths > 0)
        return np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32)

    def find(self, item_ids: np.ndarray) -> np.ndarray:
        """Index of each item in the table, -1 where it is not there."""
        if not len(self.ids):
            return np.full(item_ids.shape, -1)
        at = np.minimum(np.searchsorted(self.ids, item_ids), len(self.ids) - 1)
        return np.where(self.ids[at] == item_ids, at, -1)

    def scalar(self, name: str, at: np.ndarray) -> np.ndarray:
        """Feature `name` of the items at `at`, missing where that is -1."""
        values = self.scalars[name]
        missing = MISSING if values.dtype == np.int64 else np.float32(np.nan)
        return np.append(values, np.array([missing], values.dtype))[at]

    def write(self, path: Path) -> Shard | None:
        """Writes vectors and bags; returns None where no column is one."""
        if not self.vectors and not self.bags:
            return None
        kept = self.row >= 0
        columns: dict[str, np.ndarray | Bags] = {"item_id": self.ids, **self.vectors, **self.bags}
        arrays = {k: arrow(v[kept]) for k, v in columns.items()}
        write_batch(pa.RecordBatch.from_pydict(arrays), path)
        return Shard(path.name, int(kept.sum()), 0, digest_file(path))


def item_table(source: Source) -> ItemTable | None:
    """The item table of `source`, checked; raises `BadInput` for a bad row or an id given twice."""
    if source.items is None:
        return None
    columns = {
        k: c
        for k, c in source.schema.columns.items()
        if k in source.items.frame.columns and k != "item_id"
    }
    frame, has_vectors = canonical_items(source.items, source, columns)
    ids = frame["item_id"].to_numpy()
    order = np.argsort(ids, kind="stable")
    twice = np.flatnonzero(np.diff(ids[order]) == 0)
    if len(twice):
        rows = order[twice[0] : twice[0] + 2]
        shown = source.items.frame["item_id"][int(rows[1])]
        raise BadInput(
            f"{source.items.file}, row {source.items.first_row + int(rows[1])}, column 'item_id': "
            f"value {shown!r} is there twice (first in row "
            f"{source.items.first_row + int(rows[0])}); an item table has one row per item"
        )
    has_vectors = has_vectors[order]
    bags = {k: _bags(frame[k])[order] for k, c in columns.items() if c.kind == "bag"}
    taken = {k: frame[k].to_numpy()[order] for k in columns if k not in bags}
    # An item that lacks one of its vectors counts as having none.
    vectors = {k: v * has_vectors[:, None] for k, v in taken.items() if v.ndim == 2}
    scalars = {k: v for k, v in taken.items() if v.ndim == 1}
    return ItemTable(ids[order], scalars, vectors, bags, has_vectors)


def _bags(series: pl.Series) -> Bags:
    return Bags.from_arrow(series.to_arrow())
