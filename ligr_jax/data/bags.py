"""`Bags`: several ids per row, as one flat array and where each row's ids begin in it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from ligr_jax.data.manifest import MISSING


@dataclass(frozen=True)
class Bags:
    """A column of bags: row r holds ids values[offsets[r]] .. values[offsets[r + 1]], in order.

    offsets: int64 [rows + 1].
    values: int64, none of them `MISSING`; a missing bag is an empty one.
    """

    offsets: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, lengths: np.ndarray, ids: np.ndarray) -> "Bags":
        """Bags of `lengths` [rows] ids each, laid end to end in `ids`; missing ids are dropped."""
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        present = ids != MISSING
        if not present.all():
            offsets = np.concatenate([[0], np.cumsum(present, dtype=np.int64)])[offsets]
            ids = ids[present]
        return cls(offsets, ids)

    @classmethod
    def empty(cls, rows: int) -> "Bags":
        return cls(np.zeros(rows + 1, np.int64), np.empty(0, np.int64))

    @classmethod
    def from_arrow(cls, array: pa.LargeListArray) -> "Bags":
        """From lists without nulls, as views of them where they begin at 0."""
        offsets, values = array.offsets.to_numpy(), array.values.to_numpy()
        first = offsets[0] if len(offsets) else 0
        return cls(offsets - first if first else offsets, values[first:])

    @classmethod
    def joined(cls, parts: Sequence["Bags"]) -> "Bags":
        """The bags of all parts, one after the other."""
        lengths = np.concatenate([p.lengths for p in parts])
        return cls.of(lengths, np.concatenate([p.values for p in parts]))

    def arrow(self) -> pa.LargeListArray:
        return pa.LargeListArray.from_arrays(pa.array(self.offsets), pa.array(self.values))

    def series(self, name: str) -> pl.Series:
        return pl.Series(name, self.arrow())

    @property
    def lengths(self) -> np.ndarray:
        """int64 [rows]."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, rows: np.ndarray) -> "Bags":
        """The bags of `rows` (numbers or a mask), in that order."""
        begin, lengths = self.offsets[:-1][rows], self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        at = np.repeat(begin - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Bags(offsets, self.values[at])

    def padded(self, rows: np.ndarray, size: int) -> np.ndarray:
        """The first `size` ids of the bags of `rows`: int64 [*rows.shape, size], then `MISSING`."""
        begin = self.offsets[rows]
        place = np.arange(size)
        there = place < (self.offsets[rows + 1] - begin)[..., None]
        out = np.full(there.shape, MISSING)
        out[there] = self.values[(begin[..., None] + place)[there]]
        return out
