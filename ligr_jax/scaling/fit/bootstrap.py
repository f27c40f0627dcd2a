"""Bootstrap over runs, or over groups of runs: the weights of the runs in each resample."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ligr_jax.data.schema import BadInput

Array = NDArray[np.float64]
Levels = NDArray[np.int64]
CONFIDENCE = 0.90
SAME_BUDGET = 0.02  # runs whose compute differs by at most 2 % have the same budget
MOST_JITTER = 0.25  # widest budget, in log compute, that is taken from the data
APART = 3.0  # gaps between budgets, in the largest gap within a budget


def budgets(compute: ArrayLike, tolerance: float = SAME_BUDGET) -> Levels:
    """Return the index of each run's compute budget, 0 for the smallest.

    Consecutive runs (sorted by compute) that differ by at most `tolerance` share a budget.

    Args:
        compute: FLOPs of each run, shape (n,).
        tolerance: relative difference.

    Returns:
        Budget indices, int64, shape (n,).
    """
    c = np.asarray(compute, np.float64)
    order = np.argsort(c, kind="stable")
    index = np.empty(len(c), np.int64)
    index[order] = np.concatenate([[0], np.cumsum(np.diff(np.log(c[order])) > tolerance)])
    return index


def scale_levels(values: ArrayLike) -> Levels:
    """Return the index of each run's level of a scale, 0 for the smallest.

    The levels are the `budgets` of the values. Dense values, e.g. of marks every few steps, would
    all be one budget: a budget wider than 25 % is divided into levels of 2 %.

    Args:
        values: positive values of the runs, (n,).

    Returns:
        Level indices, int64, shape (n,).
    """
    logs = np.log(np.asarray(values, np.float64))
    order = np.argsort(logs, kind="stable")
    x = logs[order]
    starts: list[int] = []
    ends = np.append(np.flatnonzero(np.diff(x) > SAME_BUDGET) + 1, len(x))
    first = 0
    for end in ends:
        starts.append(first)
        while x[end - 1] - x[first] > MOST_JITTER:
            first += int(np.searchsorted(x[first:end], x[first] + SAME_BUDGET, side="right"))
            starts.append(first)
        first = int(end)
    index = np.empty(len(x), np.int64)
    index[order] = np.searchsorted(starts, np.arange(len(x)), side="right") - 1
    return index


def budget_tolerance(compute: ArrayLike) -> float:
    """Return the relative difference in compute within a budget, from the gaps between the runs.

    Layers and steps are whole numbers, so the runs of a budget jitter by several percent. The
    tolerance is the smallest for which every gap between two budgets is at least three times the
    largest gap within one, and no budget is wider than 25 %; 2 % if there is none.
    """
    log_c = np.log(np.asarray(compute, np.float64))
    gaps = np.sort(np.diff(np.sort(log_c)))
    within = np.maximum(gaps[:-1], SAME_BUDGET)
    for tolerance in within[gaps[1:] > APART * within] * (1 + 1e-9):
        index = budgets(compute, tolerance)
        if max(np.ptp(log_c[index == k]) for k in range(index.max() + 1)) <= MOST_JITTER:
            return float(tolerance)
    return SAME_BUDGET


def resample(
    compute: Array, groups: Sequence[Any] | None, free: int, resamples: int, seed: int
) -> tuple[Array, int, list[str]]:
    """Draw bootstrap resamples, represented as a weight per run.

    A resample with fewer distinct budgets than free parameters cannot be fitted and is redrawn.

    Args:
        compute: FLOPs of each run, shape (n,).
        groups: a label per run; runs with equal labels are drawn together. None: single runs.
        free: number of parameters of the law.
        resamples: number of resamples R.
        seed: seed of the random generator.

    Returns:
        Counts of each run in each resample, shape (R, n); the number of units drawn (groups or
        runs); warnings. Counts have shape (0, n) if there are too few units for intervals.
    """
    return resample_levels([(scale_levels(compute), free)], groups, free, resamples, seed)


def resample_levels(
    needed: Sequence[tuple[Levels, int]],
    groups: Sequence[Any] | None,
    free: int,
    resamples: int,
    seed: int,
) -> tuple[Array, int, list[str]]:
    """Draw resamples as `resample` does, with several conditions on a valid resample.

    Args:
        needed: pairs (level of each run, least number of distinct levels in a resample), e.g. one
            for distinct sizes and one for distinct data. A resample that misses one is redrawn.
        groups: as in `resample`.
        free: as in `resample`.
        resamples: as in `resample`.
        seed: as in `resample`.

    Returns:
        As `resample`.
    """
    refuse_negative(resamples)
    n = len(needed[0][0])
    notes = []
    # With as many parameters as groups every resample of groups is degenerate: use single runs.
    labels = np.arange(n) if groups is None else np.array([str(g) for g in groups])
    unit = np.unique(labels, return_inverse=True)[1]
    if unit.max() + 1 <= free < n:
        unit = np.arange(n)
        notes.append("too few groups to resample groups: single runs were resampled instead")
    units = int(unit.max()) + 1
    if resamples and units <= free:
        notes.append(
            f"{units} points and {free} parameters: the law interpolates the points, no intervals"
        )
        return np.zeros((0, n)), units, notes
    if units < free + 3:
        notes.append(f"only {units} runs or groups: the intervals are rough")
    # Rejection sampling: draw blocks of `resamples` and keep the valid ones until there are enough.
    rng = np.random.default_rng(seed)
    total = 0
    kept = [np.zeros((0, units))]
    while total < resamples:
        drawn = rng.multinomial(units, np.full(units, 1 / units), size=resamples).astype(float)
        for level, least in needed:
            has_level = np.zeros((units, level.max() + 1))
            has_level[unit, level] = 1
            drawn = drawn[((drawn @ has_level) > 0).sum(1) >= least]
        kept.append(drawn)
        total += len(drawn)
    return np.concatenate(kept)[:resamples][:, unit], units, notes


def frontier_budgets(compute: Array, frontier: bool, tolerance: float | None) -> Levels:
    """Return the budgets of a fit, with the tolerance from the data for a frontier without one."""
    if tolerance is None and frontier:
        tolerance = budget_tolerance(compute)
    if tolerance is None or tolerance == SAME_BUDGET:
        return scale_levels(compute)
    return budgets(compute, tolerance)


def best_of_budgets(budget: Levels, loss: Array, counts: Array) -> Array:
    """Return the weights of the frontier of each resample: 1 for the best run drawn of each budget.

    Args:
        budget: index of each run's budget, (n,).
        loss: metric of each run, lower is better, (n,).
        counts: counts of each run in each resample, (R, n).
    """
    weights = np.zeros(counts.shape)
    for k in range(budget.max() + 1):
        runs = np.flatnonzero(budget == k)
        runs = runs[np.argsort(loss[runs], kind="stable")]
        drawn = counts[:, runs] > 0
        some = np.flatnonzero(drawn.any(axis=1))
        weights[some, runs[drawn.argmax(axis=1)[some]]] = 1.0
    return weights


def refuse_negative(resamples: int) -> None:
    """Raise BadInput for a negative number of resamples."""
    if resamples < 0:
        raise BadInput(f"resamples={resamples}: give 0 for no intervals, or at least 1")
