"""Groups of runs of one compute: iso-FLOP budgets, and the frontier of the best run at each."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit import IsoFlop, fit_isoflop
from ligr_jax.scaling.report.arms import sampling, subset
from ligr_jax.scaling.runs import column

SAME = np.log(1.06)  # runs of a budget: sizes do not divide it exactly
FEWEST_SIZES, FEWEST_BUDGETS = 3, 2
WIDEST = np.log(1.5)  # between a budget's largest and smallest model, at least

Array = NDArray[np.float64]


class Grid(NamedTuple):
    """Runs of budgets times sizes. rows: places in the table; budget, size: of each of them."""

    rows: NDArray[np.int64]
    budget: Array
    size: Array


def iso_flop_grid(table: pl.DataFrame, axis: str, size: str = "params_dense") -> Grid | None:
    """Runs that share a budget (within 6 %) at three sizes or more, where two budgets have such.

    A budget is the geometric mean of its runs' compute. None where there is no such grid.
    """
    if size not in table.columns or axis not in table.columns:
        return None
    c, n = column(table, axis), column(table, size)
    order = [i for i in np.argsort(c, kind="stable") if c[i] > 0 and n[i] > 0]
    if not order:
        return None
    steps = np.diff(np.log(c[order])) > SAME
    parts = [np.array(p) for p in np.split(np.array(order), np.flatnonzero(steps) + 1)]
    wide = [p for p in parts if len(set(n[p])) >= FEWEST_SIZES and np.ptp(np.log(n[p])) > WIDEST]
    if len(wide) < FEWEST_BUDGETS:
        return None
    mean = [np.full(len(p), np.exp(np.log(c[p]).mean())) for p in wide]
    rows = np.concatenate(wide)
    return Grid(rows, np.concatenate(mean), n[rows])


def frontier(compute: Array, metric: Array) -> list[int]:
    """Runs that no run of as little compute beats (lower is better), the cheapest first."""
    best, found = np.inf, []
    for i in np.lexsort((metric, compute)):
        if compute[i] > 0 and metric[i] < best:
            best = metric[i]
            found.append(int(i))
    return found


def iso_flop(
    table: pl.DataFrame, arms: Sequence[str], metric: str, axis: str, resamples: int
) -> dict[str, tuple[Grid, IsoFlop]]:
    """Grid and fitted minima of every architecture that has budgets times sizes."""
    found = {}
    for arm in dict.fromkeys(arms):
        part = subset(table, arms, arm, axis)
        grid = iso_flop_grid(part, axis)
        if grid is None:
            continue
        runs = part[grid.rows]
        grid = grid._replace(rows=_places(table, runs))
        try:
            law = fit_isoflop(
                grid.budget, grid.size, column(runs, metric), **sampling(runs, resamples)
            )
        except BadInput:  # fewer than two minima lie inside their budgets' sizes
            continue
        found[arm] = (grid, law)
    return found


def _places(table: pl.DataFrame, runs: pl.DataFrame) -> NDArray[np.int64]:
    at = {name: i for i, name in enumerate(table["run"])}
    return np.array([at[name] for name in runs["run"]])
