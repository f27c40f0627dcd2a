"""Long-dwell labels: dwell time above a percentile of similar impressions on the previous day.

A single threshold would favour items that take long to read, and would become outdated. Impressions
are therefore grouped into clusters (surface x item type x position), and a dwell is long if it
exceeds the 90th percentile of its cluster, which is measured every day (LiRank 3.11). The
thresholds of a day come from the previous day, because the distribution of the current day is not
yet known at the time of an impression.

    cluster = clusters((surface, 3), (item_type, 5), (position_bucket(position), 4))
    log["long_dwell"] = long_dwell(log["dwell_s"], cluster, log["timestamp_ms"] // 86_400_000)

`LongDwell` labels a stream, one day at a time. `ligr prepare` can use the labels as an action.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ligr_jax.data.schema import UNKNOWN

_SHORTEST, _LONGEST = 1e-2, 1e6  # range of the buckets, seconds
_STEP = 0.01  # relative width of a bucket
_BUCKETS = 2 + int(np.ceil(np.log(_LONGEST / _SHORTEST) / np.log1p(_STEP)))

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def position_bucket(position: ArrayLike, edges: tuple[int, ...] = (1, 3, 10)) -> Ints:
    """Return the bucket of each position, counted from 0; by default 0, 1-2, 3-9, and 10 or more.

    Args:
        position: int [N], display positions counted from 0.
        edges: the first position of every bucket but the first.
    """
    return np.searchsorted(np.asarray(edges), np.asarray(position), side="right").astype(np.int64)


def clusters(*columns: tuple[ArrayLike, int]) -> Ints:
    """Number the combinations of several columns.

    Args:
        columns: for each column, its values (int [N], in 0..size-1) and its size.

    Returns:
        int64 [N], in 0..(product of the sizes)-1.

    Raises:
        ValueError: a value is outside 0..size-1.
    """
    number: Ints = np.zeros(len(np.asarray(columns[0][0])), np.int64)
    for k, (values, size) in enumerate(columns):
        value = np.asarray(values, np.int64)
        invalid = np.flatnonzero((value < 0) | (value >= size))
        if len(invalid):
            row = invalid[0]
            raise ValueError(
                f"column {k}, row {row}: {value[row]} is outside 0..{size - 1}; number the values "
                "of the column from 0, or raise its size"
            )
        number = number * size + value
    return number


@dataclass
class DwellCounts:
    """Histogram of the dwell times of one day per cluster, with buckets 1 % wide.

    Histograms of parts of a day can be added in any order. Memory does not depend on the number of
    impressions (Masson et al. 2019).

    Attributes:
        counts: int64 [clusters, buckets].
    """

    counts: Ints

    @classmethod
    def of(cls, dwell: ArrayLike, cluster: ArrayLike, size: int) -> "DwellCounts":
        """Count dwell times.

        Args:
            dwell: float [N], seconds; NaN if not recorded, which is not counted.
            cluster: int [N], in 0..size-1.
            size: number of clusters.

        Raises:
            ValueError: a cluster is outside 0..size-1.
        """
        seconds = np.asarray(dwell, np.float64)
        number = np.asarray(cluster, np.int64)
        invalid = np.flatnonzero((number < 0) | (number >= size))
        if len(invalid):
            row = invalid[0]
            raise ValueError(
                f"cluster[{row}]={number[row]} is outside 0..{size - 1}; number clusters from 0, "
                "or raise the number of clusters"
            )
        known = ~np.isnan(seconds)
        cell = number[known] * _BUCKETS + _bucket(seconds[known])
        return cls(np.bincount(cell, minlength=size * _BUCKETS).reshape(size, _BUCKETS))

    def __add__(self, other: "DwellCounts") -> "DwellCounts":
        return DwellCounts(self.counts + other.counts)

    def thresholds(self, percentile: float, least: int) -> Floats:
        """Return a percentile of each cluster.

        Args:
            percentile: in (0, 1).
            least: clusters with fewer impressions get the percentile of all clusters together.

        Returns:
            float64 [clusters], seconds: the upper end of the bucket of the percentile, at most 1 %
            above it; NaN if there are no impressions at all.
        """
        all_clusters = self.counts.sum(0, keepdims=True)
        by_cluster = _quantile(self.counts, percentile)
        overall = _quantile(all_clusters, percentile)[0]
        return np.where(self.counts.sum(1) >= least, by_cluster, overall)


@dataclass
class LongDwell:
    """Labels a stream of impressions with the thresholds of the latest complete day.

    Attributes:
        size: number of clusters.
        percentile: a dwell above this percentile of its cluster is long.
        least: number of impressions that a cluster needs to have its own threshold.
    """

    size: int
    percentile: float = 0.9
    least: int = 100
    _day: int | None = None
    _limits: Floats | None = None
    _counts: DwellCounts = field(init=False)

    def __post_init__(self) -> None:
        if not 0 < self.percentile < 1 or self.least < 1 or self.size < 1:
            raise ValueError(
                f"percentile={self.percentile} must be inside (0, 1), least={self.least} and "
                f"size={self.size} at least 1"
            )
        self._counts = self._no_counts()

    def add(self, day: int, dwell: ArrayLike, cluster: ArrayLike) -> NDArray[np.int8]:
        """Label impressions of one day, and count them for the next day.

        Args:
            day: number of the day; days must be added in order.
            dwell: float [N], seconds; NaN if not recorded.
            cluster: int [N], in 0..size-1.

        Returns:
            int8 [N]: 1 if the dwell is long, 0 if not, -1 if it was not recorded or there is no
            earlier day. Days without any dwell are skipped: the thresholds come from the latest
            earlier day that has one.

        Raises:
            ValueError: the day precedes one that was added, or a cluster is outside 0..size-1.
        """
        if self._day is not None and day < self._day:
            raise ValueError(f"day {day} is added after day {self._day}; add days in order")
        counts = DwellCounts.of(dwell, cluster, self.size)
        if self._day is not None and day > self._day and self._counts.counts.any():
            self._limits = self._counts.thresholds(self.percentile, self.least)
            self._counts = self._no_counts()
        self._day = day
        self._counts += counts
        seconds = np.asarray(dwell, np.float64)
        if self._limits is None:
            return np.full(len(seconds), UNKNOWN, np.int8)
        limit = self._limits[np.asarray(cluster, np.int64)]
        return np.where(np.isnan(seconds), UNKNOWN, seconds > limit).astype(np.int8)

    def _no_counts(self) -> DwellCounts:
        return DwellCounts(np.zeros((self.size, _BUCKETS), np.int64))


def long_dwell(
    dwell: ArrayLike,
    cluster: ArrayLike,
    day: ArrayLike,
    percentile: float = 0.9,
    least: int = 100,
) -> NDArray[np.int8]:
    """Label a whole log, as `LongDwell` does.

    Args:
        dwell: float [N], seconds; NaN if not recorded. Rows may have any order.
        cluster: int [N], clusters numbered from 0.
        day: int [N], number of the day.
        percentile: a dwell above this percentile of its cluster is long.
        least: number of impressions that a cluster needs to have its own threshold.

    Returns:
        int8 [N]: 1, 0 or -1 (unknown).
    """
    seconds, number = np.asarray(dwell, np.float64), np.asarray(cluster, np.int64)
    days = np.asarray(day, np.int64)
    labels = np.full(len(seconds), UNKNOWN, np.int8)
    stream = LongDwell(int(number.max(initial=0)) + 1, percentile, least)
    order = np.argsort(days, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(days[order])) + 1):
        if len(rows):
            labels[rows] = stream.add(int(days[rows[0]]), seconds[rows], number[rows])
    return labels


def _bucket(seconds: Floats) -> Ints:
    """Return b with edge(b - 1) < seconds <= edge(b), where edge(b) = shortest (1 + step)^b."""
    inside = np.log(np.clip(seconds, _SHORTEST, _LONGEST) / _SHORTEST) / np.log1p(_STEP)
    result: Ints = np.ceil(inside - 1e-9).astype(np.int64)
    return result


def _quantile(counts: Ints, percentile: float) -> Floats:
    """Return the upper end of the bucket of a percentile, [clusters]; NaN without counts."""
    total = counts.sum(1)
    rank = np.ceil(percentile * total)
    bucket = (counts.cumsum(1) < rank[:, None]).sum(1)
    return np.where(total > 0, _SHORTEST * (1 + _STEP) ** bucket.astype(np.float64), np.nan)
