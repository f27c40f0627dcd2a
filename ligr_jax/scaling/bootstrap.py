"""Resampling of runs, by whole groups where seeds share one, and what counts as one budget."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
SAME_BUDGET = 0.02  # runs within 2 % of compute are one budget


def budgets(compute: ArrayLike) -> NDArray[np.int64]:
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
    n, notes = len(compute), []
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
    rng, of = np.random.default_rng(seed), budgets(compute)
    has = np.zeros((units, of.max() + 1))
    has[unit, of] = 1
    kept, total = [np.zeros((0, units))], 0
    while total < resamples:
        drawn = rng.multinomial(units, np.full(units, 1 / units), size=resamples).astype(float)
        drawn = drawn[((drawn @ has) > 0).sum(1) >= free]
        kept, total = [*kept, drawn], total + len(drawn)
    return np.concatenate(kept)[:resamples][:, unit], units, notes
