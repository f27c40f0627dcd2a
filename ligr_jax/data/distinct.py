"""The distinct table rows of a batch, found on the host: sparse training reads and writes those."""

from typing import NamedTuple

import numpy as np

from ligr_jax.config import ModelConfig
from ligr_jax.data.batch import Array, Batch


class Distinct(NamedTuple):
    """Rows of one table that a batch looks up, the batch in n equal parts, one for each device.

    Lists have a length that fits every batch of this size, so that a step compiles once: after the
    rows come V, V + 1, ..., which are nobody's.

    own: int32 [n, u], rising: the distinct rows of each part.
    rows: int32 [U], rising: those of the whole batch.
    place: int32 [n, u]: where own rows stand among `rows`; U for nobody's.
    """

    own: Array
    rows: Array
    place: Array


class DistinctRows:
    """Renames a batch's ids to places in the lists of their part of the batch."""

    def __init__(self, model: ModelConfig, parts: int = 1, merge: bool = True) -> None:
        """
        Args:
            parts: n, devices that share the batch's rows in order.
            merge: whether to give `rows` and `place`, or None for both.
        """
        self.parts, self.shapes, self.merge = parts, model.tables, merge
        self.users = {
            table: [
                n for n, f in model.features.items() if f.has_table and model.table_of(n) == table
            ]
            for table in model.tables
        }

    def __call__(self, batch: Batch) -> tuple[Batch, dict[str, Distinct]]:
        """The batch with ids in 0..u-1 (-1 stays: no id), and the lists by table."""
        places, lists = dict(batch.ids), {}
        for table, users in self.users.items():
            ids = [batch.ids[name].reshape(self.parts, -1) for name in users]
            lists[table], place = distinct(
                np.concatenate(ids, 1), self.shapes[table].rows, self.merge
            )
            ends = np.cumsum([i.shape[1] for i in ids])[:-1]
            for name, part in zip(users, np.split(place, ends, axis=1)):
                places[name] = part.reshape(batch.ids[name].shape)
        return batch._replace(ids=places), lists


def distinct(ids: np.ndarray, v: int, merge: bool = True) -> tuple[Distinct, np.ndarray]:
    """The lists of a table of `v` rows for ids [n, k], and int32 [n, k]: where each id stands.

    An id of -1 is none, and stands at -1.
    """
    found = [_unique(part) for part in ids]
    u = min(v, ids.shape[1])
    own = np.stack([_filled(rows, u, v) for rows, _ in found])
    places = np.stack([place for _, place in found])
    if not merge:
        return Distinct(own, None, None), places
    every = found[0][0] if len(ids) == 1 else np.unique(np.concatenate([r for r, _ in found]))
    rows = _filled(every, min(v, ids.size), v)
    place = np.where(own < v, np.searchsorted(rows, own), len(rows)).astype(np.int32)
    return Distinct(own, rows, place), places


def _unique(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows, place = np.unique(ids, return_inverse=True)
    none = int(len(rows) > 0 and rows[0] < 0)
    return rows[none:], (place - none).astype(np.int32)


def _filled(rows: np.ndarray, length: int, v: int) -> np.ndarray:
    return np.concatenate([rows, np.arange(v, v + length - len(rows))]).astype(np.int32)
