"""`Bags`: several ids per row, stored as one flat array and the offset of each row."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from ligr_jax.data.manifest import MISSING


@dataclass(frozen=True)
class Bags:
    """A column of bags: row r holds the ids values[offsets[r]:offsets[r + 1]], in order.

    Attributes:
        offsets: int64 [rows + 1].
        values: int64 [ids], none of them `MISSING`. A missing bag is an empty bag.
    """

    offsets: np.ndarray
    values: np.ndarray

    @classmethod
    def from_lengths(cls, lengths: np.ndarray, ids: np.ndarray) -> "Bags":
        """Build bags from concatenated ids; missing ids are dropped.

        Args:
            lengths: int [rows], number of ids of each bag.
            ids: int64 [sum of lengths], the ids of all bags; `MISSING` stands for a missing id.
        """
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        present = ids != MISSING
        if not present.all():
            offsets = np.concatenate([[0], np.cumsum(present, dtype=np.int64)])[offsets]
            ids = ids[present]
        return cls(offsets, ids)

    @classmethod
    def empty(cls, rows: int) -> "Bags":
        """Return `rows` empty bags."""
        return cls(np.zeros(rows + 1, np.int64), np.empty(0, np.int64))

    @classmethod
    def from_arrow(cls, array: pa.LargeListArray) -> "Bags":
        """Build bags from lists without nulls, without copying values."""
        offsets, values = array.offsets.to_numpy(), array.values.to_numpy()
        first = offsets[0] if len(offsets) else 0
        return cls(offsets - first if first else offsets, values[first:])

    @classmethod
    def from_slices(cls, ids: np.ndarray, begin: np.ndarray, lengths: np.ndarray) -> "Bags":
        """Build bags from slices of an array, in any order.

        Args:
            ids: int64, none of them `MISSING`.
            begin: int64 [rows], index of the first id of each bag.
            lengths: int64 [rows], number of ids of each bag.
        """
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        index = np.repeat(begin - offsets[:-1], lengths) + np.arange(offsets[-1])
        return cls(offsets, ids[index])

    @classmethod
    def concatenate(cls, parts: Sequence["Bags"]) -> "Bags":
        """Return the bags of all parts in order."""
        lengths = np.concatenate([p.lengths for p in parts])
        return cls.from_lengths(lengths, np.concatenate([p.values for p in parts]))

    def to_arrow(self) -> pa.LargeListArray:
        """Return the bags as a large_list<int64> array."""
        return pa.LargeListArray.from_arrays(pa.array(self.offsets), pa.array(self.values))

    def to_series(self, name: str) -> pl.Series:
        """Return the bags as a polars column of lists."""
        return pl.Series(name, self.to_arrow())

    @property
    def lengths(self) -> np.ndarray:
        """Number of ids of each bag, int64 [rows]."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, rows: np.ndarray) -> "Bags":
        """Return the bags of some rows, which are indices or a mask."""
        return Bags.from_slices(self.values, self.offsets[:-1][rows], self.lengths[rows])

    def padded(self, rows: np.ndarray, size: int) -> np.ndarray:
        """Return the first `size` ids of each bag, padded with `MISSING`.

        Args:
            rows: int array of any shape, row numbers.
            size: the most ids of a bag that are returned.

        Returns:
            int64 [*rows.shape, size].
        """
        begin = self.offsets[rows]
        position = np.arange(size)
        valid = position < (self.offsets[rows + 1] - begin)[..., None]
        out = np.full(valid.shape, MISSING)
        out[valid] = self.values[(begin[..., None] + position)[valid]]
        return out
