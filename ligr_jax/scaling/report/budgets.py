"""Groups of runs with equal compute (iso-FLOP budgets), and the frontier of best runs."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ligr_jax.data.schema import BadInput
from ligr_jax.runs.run_table import RunTable
from ligr_jax.scaling.fit import IsoFlop, fit_isoflop
from ligr_jax.scaling.report.arms import sampling, subset

SAME = np.log(1.06)  # tolerance of a budget: sizes do not divide it exactly
FEWEST_SIZES = 3
FEWEST_BUDGETS = 2
WIDEST = np.log(1.5)  # least ratio of a budget's largest to its smallest model

Array = NDArray[np.float64]


class Grid(NamedTuple):
    """Runs of an iso-FLOP grid: row numbers in the table, and the budget and size of each row."""

    rows: NDArray[np.int64]
    budget: Array
    size: Array


def iso_flop_grid(table: RunTable, axis: str, size: str = "params_dense") -> Grid | None:
    """Return the runs of an iso-FLOP grid: two budgets or more with three sizes or more each.

    Runs within 6 % of compute share a budget, which is the geometric mean of their compute.

    Args:
        table: runs.
        axis: column of compute.
        size: column of size.

    Returns:
        The grid; None if the table has none.
    """
    if not table.has(size) or not table.has(axis):
        return None
    c, n = table.numbers(axis), table.numbers(size)
    order = [i for i in np.argsort(c, kind="stable") if c[i] > 0 and n[i] > 0]
    if not order:
        return None
    groups: list[list[int]] = [[]]
    for i in order:
        if groups[-1] and np.log(c[i] / c[groups[-1][0]]) > SAME:
            groups.append([])
        groups[-1].append(int(i))
    parts = [np.array(p) for p in groups]
    wide = [p for p in parts if len(set(n[p])) >= FEWEST_SIZES and np.ptp(np.log(n[p])) > WIDEST]
    if len(wide) < FEWEST_BUDGETS:
        return None
    mean = [np.full(len(p), np.exp(np.log(c[p]).mean())) for p in wide]
    rows = np.concatenate(wide)
    return Grid(rows, np.concatenate(mean), n[rows])


def frontier_rows(compute: Array, metric: Array) -> list[int]:
    """Return the runs that are better (lower) than all runs of at most their compute, sorted."""
    best = np.inf
    rows = []
    for i in np.lexsort((metric, compute)):
        if compute[i] > 0 and metric[i] < best:
            best = metric[i]
            rows.append(int(i))
    return rows


def fit_iso_flop_grids(
    table: RunTable, arms: Sequence[str], metric: str, axis: str, resamples: int
) -> tuple[dict[str, tuple[Grid, IsoFlop]], list[str]]:
    """Fit the iso-FLOP law of every architecture with a sweep of budgets times sizes.

    Args:
        table: runs.
        arms: architecture of each run.
        metric: column of the metric, lower is better.
        axis: column of compute.
        resamples: number of bootstrap resamples.

    Returns:
        Grid and law by architecture, and notes: warnings of the fits, and why a fit failed.
    """
    laws: dict[str, tuple[Grid, IsoFlop]] = {}
    notes: list[str] = []
    row_of_run = {name: i for i, name in enumerate(table.names)}
    for arm in dict.fromkeys(arms):
        sweeps = subset(table, arms, arm, axis).by_sweep()
        grids = [
            (part.take(grid.rows), grid) for part in sweeps if (grid := iso_flop_grid(part, axis))
        ]
        if not grids:
            continue
        # An architecture may be in several such sweeps: use the one with the most runs.
        runs, grid = max(grids, key=lambda pair: len(pair[0]))
        grid = grid._replace(rows=np.array([row_of_run[name] for name in runs.names]))
        try:
            law = fit_isoflop(
                grid.budget, grid.size, runs.numbers(metric), **sampling(runs, resamples)
            )
        except BadInput as e:
            notes.append(f"no law of the best size: {e}")
            continue
        laws[arm] = (grid, law)
        notes += law.warnings
    return laws, notes
