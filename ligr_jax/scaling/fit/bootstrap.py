"""Resampling of runs, by whole groups where seeds share one, and intervals from the resamples."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]
Levels = NDArray[np.int64]
CONFIDENCE = 0.90
SAME_BUDGET = 0.02  # runs within 2 % of compute are one budget


def budgets(compute: ArrayLike) -> Levels:
    """Index of each run's budget, smallest first; runs within 2 % of compute share one."""
    c = np.asarray(compute, np.float64)
    order = np.argsort(c, kind="stable")
    index = np.empty(len(c), np.int64)
    index[order] = np.concatenate([[0], np.cumsum(np.diff(np.log(c[order])) > SAME_BUDGET)])
    return index


def resample(
    compute: Array, groups: Sequence[Any] | None, free: int, resamples: int, seed: int
) -> tuple[Array, int, list[str]]:
    """Bootstrap as weights: counts (resamples, runs), number of units drawn, notes.

    A resample with fewer distinct budgets than free parameters determines nothing and is redrawn.
    """
    return resample_levels([(budgets(compute), free)], groups, free, resamples, seed)


def resample_levels(
    needed: Sequence[tuple[Levels, int]],
    groups: Sequence[Any] | None,
    free: int,
    resamples: int,
    seed: int,
) -> tuple[Array, int, list[str]]:
    """As `resample`, redrawn until every (level of each run, least number of levels) is met."""
    n, notes = len(needed[0][0]), []
    labels = np.arange(n) if groups is None else np.array([str(g) for g in groups])
    unit = np.unique(labels, return_inverse=True)[1]
    if unit.max() + 1 <= free < n:
        unit = np.arange(n)
        notes.append("too few groups to resample whole ones: single runs were resampled instead")
    units = int(unit.max()) + 1
    if resamples and units <= free:
        notes.append(f"{units} points and {free} parameters: the law passes through, no intervals")
        return np.zeros((0, n)), units, notes
    if units < free + 3:
        notes.append(f"only {units} runs or groups: the intervals are indicative at best")
    rng, total = np.random.default_rng(seed), 0
    kept = [np.zeros((0, units))]
    while total < resamples:
        drawn = rng.multinomial(units, np.full(units, 1 / units), size=resamples).astype(float)
        for level, least in needed:
            has = np.zeros((units, level.max() + 1))
            has[unit, level] = 1
            drawn = drawn[((drawn @ has) > 0).sum(1) >= least]
        kept, total = [*kept, drawn], total + len(drawn)
    return np.concatenate(kept)[:resamples][:, unit], units, notes


def tails(confidence: float, freedom: int | None = None) -> tuple[float, float]:
    """The two quantiles of the draws that bound an interval.

    Plain percentiles, or, given the degrees of freedom that the noise was judged by, the expanded
    percentiles of Hesterberg 2015 (The American Statistician 69:4, section 3.2): so far out that
    the interval has Student's width, and still never leaves the range of the draws.
    """
    tail = 0.5 * (1.0 - confidence)
    if freedom:
        tail = float(stats.norm.cdf(stats.t.ppf(tail, freedom)))
    return tail, 1.0 - tail
