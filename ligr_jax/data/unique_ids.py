"""Unique ids of a batch per table, computed on the host. Sparse training uses only these rows."""

from typing import NamedTuple

import numpy as np

from ligr_jax.config import ModelConfig
from ligr_jax.data.batch import Array, Batch

_MARKED = 2**20  # rows of a table up to which marking rows is faster than sorting ids


class UniqueIds(NamedTuple):
    """Unique ids of one table in a batch, which is cut into n equal parts, one for each device.

    The arrays have a length that suffices for every batch of this size, so that a step compiles
    once. They are padded with V, V + 1, ..., which are out of range for a table of V rows.

    Attributes:
        local: int32 [n, u], increasing: unique ids of each part.
        unique: int32 [U], increasing: unique ids of the whole batch.
        inverse: int32 [n, u]: index of each local id in `unique`; U for padding.
    """

    local: Array
    unique: Array
    inverse: Array


class MappedBatch(NamedTuple):
    """A batch whose ids are indices into the unique ids of their part of the batch.

    Attributes:
        batch: the batch; its ids are in 0..u-1, or -1 for no id.
        unique_ids: unique ids by table; empty if tables train densely, and then the ids of `batch`
            are table rows.
    """

    batch: Batch
    unique_ids: dict[str, UniqueIds]


class UniqueIdMapper:
    """Replaces the ids of a batch by indices into the local unique ids of their part."""

    def __init__(self, model: ModelConfig, parts: int = 1, whole_batch: bool = True) -> None:
        """
        Args:
            model: model configuration, for its tables.
            parts: n, the number of devices that the rows of the batch are sharded over.
            whole_batch: whether to compute `unique` and `inverse`; otherwise both are None.
        """
        self.parts = parts
        self.shapes = model.tables
        self.whole_batch = whole_batch
        self.users = {
            table: [
                n for n, f in model.features.items() if f.has_table and model.table_of(n) == table
            ]
            for table in model.tables
        }

    def __call__(self, batch: Batch) -> MappedBatch:
        """Return the batch with its ids replaced by indices into unique ids."""
        mapped = dict(batch.ids)
        by_table = {}
        for table, users in self.users.items():
            if len(users) == 1:
                ids = batch.ids[users[0]]
                by_table[table], indices = find_unique_ids(
                    ids.reshape(self.parts, -1), self.shapes[table].rows, self.whole_batch
                )
                mapped[users[0]] = indices.reshape(ids.shape)
                continue
            # All features of a shared table are looked up together.
            ids = [batch.ids[name].reshape(self.parts, -1) for name in users]
            by_table[table], indices = find_unique_ids(
                np.concatenate(ids, 1), self.shapes[table].rows, self.whole_batch
            )
            ends = np.cumsum([i.shape[1] for i in ids])[:-1]
            for name, part in zip(users, np.split(indices, ends, axis=1)):
                mapped[name] = part.reshape(batch.ids[name].shape)
        return MappedBatch(batch=batch._replace(ids=mapped), unique_ids=by_table)


def find_unique_ids(
    ids: np.ndarray, v: int, whole_batch: bool = True
) -> tuple[UniqueIds, np.ndarray]:
    """Find the unique ids of one table.

    Args:
        ids: [n, k], ids of each part; -1 is no id.
        v: rows of the table.
        whole_batch: whether to compute `unique` and `inverse`.

    Returns:
        The unique ids, and int32 [n, k]: index of each id in the local unique ids of its part, or
        -1 for no id.
    """
    found = [_unique(part, v) for part in ids]
    parts = [values for values, _ in found]
    local = _stacked([_padded(values, min(v, ids.shape[1]), v) for values in parts])
    indices = _stacked([index for _, index in found])
    if not whole_batch:
        return UniqueIds(local=local, unique=None, inverse=None), indices
    if len(parts) == 1:
        unique = local[0]
        inverse = np.full(local.shape, len(unique), np.int32)
        inverse[0, : len(parts[0])] = np.arange(len(parts[0]))
        return UniqueIds(local=local, unique=unique, inverse=inverse), indices
    values, _ = _unique(np.concatenate(parts), v)
    unique = _padded(values, min(v, ids.size), v)
    inverse = np.full(local.shape, len(unique), np.int32)
    for row, part in zip(inverse, parts):
        row[: len(part)] = np.searchsorted(values, part)
    return UniqueIds(local=local, unique=unique, inverse=inverse), indices


def _stacked(parts: list[np.ndarray]) -> np.ndarray:
    """Return `np.stack(parts)`, without a copy of a single part."""
    return parts[0][None] if len(parts) == 1 else np.stack(parts)


def _unique(ids: np.ndarray, v: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the unique ids without -1, and the index of each id, where -1 stays -1.

    Small tables mark the rows that occur, which takes time for every row; large tables sort the
    ids.
    """
    if v > _MARKED:
        order = np.argsort(ids)
        values = ids[order]
        first = np.ones(len(ids), bool)
        np.not_equal(values[1:], values[:-1], out=first[1:])
        first &= values >= 0
        index = np.empty(len(ids), np.int32)
        index[order] = np.cumsum(first, dtype=np.int32) - 1
        return values[first], index
    wide = ids.astype(np.intp)  # NumPy converts other indices in every use
    marked = np.zeros(v + 1, bool)
    marked[wide] = True  # -1 marks the last element
    values = np.flatnonzero(marked[:v])
    # Without a gap between the rows that occur, as in most small tables, no array is needed.
    if len(values) and not marked[v] and values[-1] - values[0] == len(values) - 1:
        return values, np.subtract(ids, values[0], dtype=np.int32)
    position = np.empty(v + 1, np.int32)
    position[values] = np.arange(len(values), dtype=np.int32)
    position[v] = -1
    return values, position.take(wide, mode="wrap")


def _padded(values: np.ndarray, length: int, v: int) -> np.ndarray:
    """Pad with V, V + 1, ... to a length."""
    out = np.empty(length, np.int32)
    out[: len(values)] = values
    out[len(values) :] = np.arange(v, v + length - len(values))
    return out
