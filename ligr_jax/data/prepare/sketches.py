"""Summaries of unbounded streams in bounded memory, exact functions of what they have seen."""

from dataclasses import dataclass, field

import numpy as np

from ligr_jax.data.manifest import MISSING, QUANTILES
from ligr_jax.ops.hashing import mix64

SKETCH = 65_536  # hashes kept to count distinct ids
SAMPLE = 100_000  # values kept to find quantiles
MINUTE_MS = 60_000


@dataclass
class DistinctIds:
    """Number of distinct ids from the `size` smallest hashes (k minimum values; Bar-Yossef 2002).

    Exact while there are at most `size`; above, (size - 1) / (largest kept hash / 2^64), with a
    relative error of about 1 / sqrt(size).
    """

    size: int = SKETCH
    exact: bool = True
    _hashes: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))

    def add(self, ids: np.ndarray) -> None:
        hashes = mix64(ids[ids != MISSING])
        if not self.exact:
            hashes = hashes[hashes < self._hashes[-1]]
        self._hashes = np.union1d(self._hashes, hashes)
        if len(self._hashes) > self.size:
            self._hashes, self.exact = self._hashes[: self.size].copy(), False

    def count(self) -> int:
        if self.exact:
            return len(self._hashes)
        return round((self.size - 1) * 2.0**64 / float(self._hashes[-1]))


@dataclass
class Quantiles:
    """Quantiles of a sample: the values whose row numbers have the `size` smallest hashes.

    The sample depends on the row numbers alone, not on the order or grouping of `add`. The ends are
    the true minimum and maximum.
    """

    size: int = SAMPLE
    _keys: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    _values: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    _range: tuple[float, float] = (np.inf, -np.inf)

    def add(self, values: np.ndarray, rows: np.ndarray) -> None:
        present = ~np.isnan(values)
        values, keys = values[present], mix64(rows[present])
        if not len(values):
            return
        low, high = self._range
        self._range = min(low, float(values.min())), max(high, float(values.max()))
        self._keys = np.concatenate([self._keys, keys])
        self._values = np.concatenate([self._values, values])
        if len(self._keys) > self.size:
            kept = np.argpartition(self._keys, self.size)[: self.size]
            self._keys, self._values = self._keys[kept], self._values[kept]

    def at(self, count: int = QUANTILES) -> tuple[float, ...]:
        """`count` equally spaced quantiles; empty where no value was seen."""
        if not len(self._values):
            return ()
        inner = np.quantile(np.sort(self._values).astype(np.float64), np.linspace(0, 1, count))
        return (self._range[0], *inner[1:-1].tolist(), self._range[1])


@dataclass
class MinuteHistogram:
    """Rows per occupied minute of time."""

    minutes: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    rows: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    def add(self, time_ms: np.ndarray) -> None:
        minutes, rows = np.unique(time_ms // MINUTE_MS, return_counts=True)
        self.minutes, place = np.unique(
            np.concatenate([self.minutes, minutes]), return_inverse=True
        )
        weights = np.concatenate([self.rows, rows])
        self.rows = np.zeros(len(self.minutes), np.int64)
        np.add.at(self.rows, place, weights)
