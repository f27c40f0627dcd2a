"""The item table: features of items kept once, joined to impressions by `item_id`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ligr_jax.data.bags import Bags
from ligr_jax.data.columns import feature
from ligr_jax.data.manifest import MISSING, Shard
from ligr_jax.data.prepare.shards import arrow, write_batch
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.source import Items, Source
from ligr_jax.data.sources.validate import canonical_items
from ligr_jax.digests import digest_file

Parts = list[dict[str, Any]]  # columns by name, of consecutive rows


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
        return find(self.ids, item_ids)

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
        columns: dict[str, np.ndarray | Bags] = {"item_id": self.ids}
        columns |= {feature(k): v for k, v in self.vectors.items()}
        columns |= {feature(k): v for k, v in self.bags.items()}
        # Not copied where nothing is left out: vectors are most of what is in memory.
        arrays = {k: arrow(v if kept.all() else v[kept]) for k, v in columns.items()}
        write_batch(pa.RecordBatch.from_pydict(arrays), path)
        return Shard(path.name, int(kept.sum()), 0, digest_file(path))


def find(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each of `wanted` stands in increasing `ids`, -1 where it does not."""
    if not len(ids):
        return np.full(wanted.shape, -1)
    at = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    return np.where(ids[at] == wanted, at, -1)


def item_table(source: Source) -> ItemTable | None:
    """The item table of `source`, checked; raises `BadInput` for a bad row or an id given twice.

    Read in batches, of which only what is kept stays; sorting it takes its size once more.
    """
    if source.items is None:
        return None
    there = source.items.columns
    columns = {k: c for k, c in source.schema.columns.items() if k in there and k != "item_id"}
    parts: Parts = []
    present: list[np.ndarray] = []
    for batch in source.items.batches():
        part, has = canonical_items(batch, source, columns)
        parts.append(part)
        present.append(has)
    ids = _joined(parts, "item_id")
    order = np.argsort(ids, kind="stable")
    _refuse_twice(ids, order, source.items)
    has_vectors = np.concatenate(present)[order]
    scalars: dict[str, np.ndarray] = {}
    vectors: dict[str, np.ndarray] = {}
    bags: dict[str, Bags] = {}
    for name, column in columns.items():
        if column.kind == "bag":
            bags[name] = Bags.joined([part.pop(name) for part in parts])[order]
        elif column.kind == "vector":
            vectors[name] = _sorted_vectors(parts, name, order)
            # An item that lacks one of its vectors counts as having none.
            vectors[name][~has_vectors] = 0
        else:
            scalars[name] = _joined(parts, name)[order]
    return ItemTable(ids[order], scalars, vectors, bags, has_vectors)


def refuse_unmatched(source: Source) -> None:
    """Raises `BadInput`: no row of the log has an item of the item table. Shows ids of both."""
    assert source.items is not None
    table, log = next(source.items.batches()), next(source.batches(1024, "skip"))
    in_table, in_log = (b.frame["item_id"].drop_nulls().head(3).to_list() for b in (table, log))
    raise BadInput(
        f"no item_id of the log is in the item table: {log.file} has e.g. {in_log}, {table.file} "
        f"has e.g. {in_table}; write both the same, or leave the item table out"
    )


def _joined(parts: Parts, name: str) -> np.ndarray:
    """A column of numbers, taken out of the parts."""
    return np.concatenate([part.pop(name) for part in parts])


def _sorted_vectors(parts: Parts, name: str, order: np.ndarray) -> np.ndarray:
    """A column of vectors in `order`, each part let go as soon as its rows are in their places."""
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    out = np.empty((len(order), parts[0][name].shape[1]), np.float32)
    first = 0
    for part in parts:
        rows = part.pop(name)
        out[place[first : first + len(rows)]] = rows
        first += len(rows)
    return out


def _refuse_twice(ids: np.ndarray, order: np.ndarray, items: Items) -> None:
    twice = np.flatnonzero(np.diff(ids[order]) == 0)
    if not len(twice):
        return
    first, again = order[twice[0] : twice[0] + 2].tolist()
    for batch in items.batches():
        if again < batch.frame.height:
            break
        again -= batch.frame.height
    raise BadInput(
        f"{batch.file}, row {batch.first_row + again}, column 'item_id': value "
        f"{batch.frame['item_id'][again]!r} is there twice (first in row {1 + first}); an item "
        "table has one row per item"
    )
