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
    alike: list[list[int]] = [[]]
    for i in order:
        if alike[-1] and np.log(c[i] / c[alike[-1][0]]) > SAME:
            alike.append([])
        alike[-1].append(int(i))
    parts = [np.array(p) for p in alike]
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
) -> tuple[dict[str, tuple[Grid, IsoFlop]], list[str]]:
    """Grid and fitted minima of every architecture that has a sweep of budgets times sizes.

    With notes: why a grid has no law, and what the fits warn of.
    """
    found, notes = {}, []
    at = {name: i for i, name in enumerate(table["run"])}
    for arm in dict.fromkeys(arms):
        sweeps = subset(table, arms, arm, axis).partition_by("sweep", maintain_order=True)
        grids = [(part[grid.rows], grid) for part in sweeps if (grid := iso_flop_grid(part, axis))]
        if not grids:
            continue
        runs, grid = max(grids, key=lambda pair: len(pair[0]))
        grid = grid._replace(rows=np.array([at[name] for name in runs["run"]]))
        try:
            law = fit_isoflop(
                grid.budget, grid.size, column(runs, metric), **sampling(runs, resamples)
            )
        except BadInput as e:
            notes.append(f"no law of the best size: {e}")
            continue
        found[arm] = (grid, law)
        notes += law.warnings
    return found, notes
