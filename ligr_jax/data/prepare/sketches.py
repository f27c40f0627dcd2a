"""Statistics of streams in bounded memory. They do not depend on the order of the stream."""

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from ligr_jax.data.manifest import MISSING, QUANTILES
from ligr_jax.ops.hashing import mix64

SKETCH = 65_536  # number of hashes kept to count distinct ids
SAMPLE = 100_000  # number of values kept to compute quantiles
MINUTE_MS = 60_000


@dataclass
class DistinctIds:
    """Number of distinct ids from the k = `size` smallest hashes (Bar-Yossef et al. 2002).

    The number is exact up to `size` distinct ids. Above, it is estimated as (size - 1) / (largest
    kept hash / 2^64), with a relative error of about 1 / sqrt(size).

    Attributes:
        size: number of hashes kept.
        exact: whether `count` is exact.
    """

    size: int = SKETCH
    exact: bool = True
    _hashes: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))

    def add(self, ids: np.ndarray) -> None:
        """Add ids, int64 [N]; `MISSING` is not counted."""
        distinct = pl.Series(ids).unique().to_numpy()
        self._add_hashes(mix64(distinct[distinct != MISSING]))

    def merge(self, other: "DistinctIds") -> None:
        """Add the ids of another stream."""
        self.exact &= other.exact
        self._add_hashes(other._hashes)

    def _add_hashes(self, hashes: np.ndarray) -> None:
        self._hashes = np.union1d(self._hashes, hashes)
        if len(self._hashes) > self.size:
            self._hashes, self.exact = self._hashes[: self.size].copy(), False

    def count(self) -> int:
        """Return the number of distinct ids."""
        if self.exact:
            return len(self._hashes)
        return round((self.size - 1) * 2.0**64 / float(self._hashes[-1]))


@dataclass
class Quantiles:
    """Quantiles of a sample of values: those whose row numbers have the `size` smallest hashes.

    The sample depends only on the row numbers and not on the order of `add`. The first and the last
    quantile are the true minimum and maximum.

    Attributes:
        size: size of the sample.
    """

    size: int = SAMPLE
    _keys: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    _values: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    _range: tuple[float, float] = (np.inf, -np.inf)

    def add(self, values: np.ndarray, rows: np.ndarray) -> None:
        """Add values (float32 [N], NaN is dropped) of the given row numbers (int64 [N])."""
        present = ~np.isnan(values)
        values, keys = values[present], mix64(rows[present])
        if not len(values):
            return
        self._add_sample(keys, values, (float(values.min()), float(values.max())))

    def merge(self, other: "Quantiles") -> None:
        """Add the values of another stream."""
        self._add_sample(other._keys, other._values, other._range)

    def _add_sample(self, keys: np.ndarray, values: np.ndarray, ends: tuple[float, float]) -> None:
        low, high = self._range
        self._range = min(low, ends[0]), max(high, ends[1])
        self._keys = np.concatenate([self._keys, keys])
        self._values = np.concatenate([self._values, values])
        if len(self._keys) > self.size:
            kept = np.argpartition(self._keys, self.size)[: self.size]
            self._keys, self._values = self._keys[kept], self._values[kept]

    def at(self, count: int = QUANTILES) -> tuple[float, ...]:
        """Return `count` equally spaced quantiles; empty without values."""
        if not len(self._values):
            return ()
        inner = np.quantile(np.sort(self._values).astype(np.float64), np.linspace(0, 1, count))
        return (self._range[0], *inner[1:-1].tolist(), self._range[1])


@dataclass
class MinuteHistogram:
    """Number of rows per minute.

    Attributes:
        minutes: int64 [n], increasing: minutes since 1970 with at least one row.
        rows: int64 [n].
    """

    minutes: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    rows: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    def add(self, time_ms: np.ndarray) -> None:
        """Add rows by their times, milliseconds, int64 [N]."""
        minutes, rows = np.unique(time_ms // MINUTE_MS, return_counts=True)
        self.merge(MinuteHistogram(minutes, rows))

    def merge(self, other: "MinuteHistogram") -> None:
        """Add the rows of another histogram."""
        minutes, rows = other.minutes, other.rows
        self.minutes, index = np.unique(
            np.concatenate([self.minutes, minutes]), return_inverse=True
        )
        weights = np.concatenate([self.rows, rows])
        self.rows = np.zeros(len(self.minutes), np.int64)
        np.add.at(self.rows, index, weights)
