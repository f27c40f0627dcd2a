"""Long dwell: longer than most impressions of the same kind the day before.

One limit for all would favour what takes long to read, and would age. So impressions fall into
clusters (surface x item type x position), and long is what exceeds the 90th percentile of its
cluster, measured anew every day (LiRank 3.11). A day is labelled by the day before it: at the time
of an impression its own day's distribution is not yet known.

    cluster = clusters((surface, 3), (item_type, 5), (position_bucket(position), 4))
    log["long_dwell"] = long_dwell(log["dwell_s"], cluster, log["timestamp_ms"] // 86_400_000)

`LongDwell` does the same to a stream, one day at a time. The labels are a column of the log that
`ligr prepare` takes for an action.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ligr_jax.data.schema import UNKNOWN

_SHORTEST, _LONGEST = 1e-2, 1e6  # seconds: ten milliseconds to eleven days
_STEP = 0.01  # relative width of a bucket
_BUCKETS = 2 + int(np.ceil(np.log(_LONGEST / _SHORTEST) / np.log1p(_STEP)))

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def position_bucket(position: ArrayLike, edges: tuple[int, ...] = (1, 3, 10)) -> Ints:
    """Number of edges at or below a position counted from 0: by default 0, 1-2, 3-9, 10 and on."""
    return np.searchsorted(np.asarray(edges), np.asarray(position), side="right").astype(np.int64)


def clusters(*columns: tuple[ArrayLike, int]) -> Ints:
    """One number in 0 .. product of the sizes - 1 for each combination, [N].

    Args:
        columns: values [N] in 0 .. size - 1, and their size.

    Raises:
        ValueError: a value is outside.
    """
    number: Ints = np.zeros(len(np.asarray(columns[0][0])), np.int64)
    for k, (values, size) in enumerate(columns):
        value = np.asarray(values, np.int64)
        wrong = np.flatnonzero((value < 0) | (value >= size))
        if len(wrong):
            raise ValueError(
                f"column {k}, row {wrong[0]}: {value[wrong[0]]} is outside 0..{size - 1}; number "
                "the column's values from 0, and give a size that holds them all"
            )
        number = number * size + value
    return number


@dataclass
class DwellCounts:
    """Dwell times of one day by cluster, counted in buckets one per cent wide.

    Counts of parts add up to those of the whole, whatever the order, in memory that does not depend
    on the number of impressions (Masson et al. 2019).

    counts: int64 [clusters, buckets].
    """

    counts: Ints

    @classmethod
    def of(cls, dwell: ArrayLike, cluster: ArrayLike, size: int) -> "DwellCounts":
        """
        Args:
            dwell: seconds [N], NaN where not recorded (left out).
            cluster: [N], in 0 .. size - 1.

        Raises:
            ValueError: a cluster is outside.
        """
        seconds, number = np.asarray(dwell, np.float64), np.asarray(cluster, np.int64)
        wrong = np.flatnonzero((number < 0) | (number >= size))
        if len(wrong):
            raise ValueError(
                f"cluster[{wrong[0]}]={number[wrong[0]]} is outside 0..{size - 1}; number clusters "
                "from 0, and give a size that holds them all"
            )
        known = ~np.isnan(seconds)
        place = number[known] * _BUCKETS + _bucket(seconds[known])
        return cls(np.bincount(place, minlength=size * _BUCKETS).reshape(size, _BUCKETS))

    def __add__(self, other: "DwellCounts") -> "DwellCounts":
        return DwellCounts(self.counts + other.counts)

    def thresholds(self, percentile: float, least: int) -> Floats:
        """Of each cluster, [clusters]: the upper end of the bucket that holds the percentile, at
        most 1 % above it.

        A cluster with fewer than `least` impressions has that of all clusters together; NaN where
        there are no impressions at all.
        """
        every = self.counts.sum(0, keepdims=True)
        own, common = _quantile(self.counts, percentile), _quantile(every, percentile)[0]
        return np.where(self.counts.sum(1) >= least, own, common)


@dataclass
class LongDwell:
    """Labels a stream: thresholds of the newest day that is over, counts of the day going on.

    size: number of clusters.
    percentile: of a cluster's dwell times, above which dwell is long.
    least: impressions that a cluster needs for a threshold of its own.
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
        self._counts = self._nothing()

    def add(self, day: int, dwell: ArrayLike, cluster: ArrayLike) -> NDArray[np.int8]:
        """Labels impressions of one day, and counts them for the next one.

        Returns int8 [N]: 1 for long, 0 for not, -1 where the dwell was not recorded or no day was
        before. After a gap of days, or days without any dwell, the newest one before it is what
        there is.

        Raises:
            ValueError: the day is before one that was added, or a cluster is not in 0..size-1.
        """
        if self._day is not None and day < self._day:
            raise ValueError(f"day {day} comes after day {self._day}; add days in order")
        counts = DwellCounts.of(dwell, cluster, self.size)
        if self._day is not None and day > self._day and self._counts.counts.any():
            self._limits = self._counts.thresholds(self.percentile, self.least)
            self._counts = self._nothing()
        self._day = day
        self._counts += counts
        seconds = np.asarray(dwell, np.float64)
        if self._limits is None:
            return np.full(len(seconds), UNKNOWN, np.int8)
        limit = self._limits[np.asarray(cluster, np.int64)]
        return np.where(np.isnan(seconds), UNKNOWN, seconds > limit).astype(np.int8)

    def _nothing(self) -> DwellCounts:
        return DwellCounts(np.zeros((self.size, _BUCKETS), np.int64))


def long_dwell(
    dwell: ArrayLike,
    cluster: ArrayLike,
    day: ArrayLike,
    percentile: float = 0.9,
    least: int = 100,
) -> NDArray[np.int8]:
    """Labels of a whole log as `LongDwell` gives them, int8 [N].

    Args, the first three [N], in any order of rows:
        dwell: seconds, NaN where not recorded.
        cluster: a number from 0.
        day: a whole number.
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
    """Bucket b holds edge(b - 1) < seconds <= edge(b), edge(b) = shortest (1 + step)^b."""
    inside = np.log(np.clip(seconds, _SHORTEST, _LONGEST) / _SHORTEST) / np.log1p(_STEP)
    return np.ceil(inside - 1e-9).astype(np.int64)


def _quantile(counts: Ints, percentile: float) -> Floats:
    """Upper end of the bucket where the running sum reaches the percentile, [rows]; NaN if none."""
    total = counts.sum(1)
    rank = np.ceil(percentile * total)
    place = (counts.cumsum(1) < rank[:, None]).sum(1)
    return np.where(total > 0, _SHORTEST * (1 + _STEP) ** place.astype(np.float64), np.nan)
