"""Resamples of the best size of each budget: residuals redrawn, or noise of known size."""

from collections.abc import Sequence

import numpy as np

from ligr_jax.scaling.fit.bootstrap import Array
from ligr_jax.scaling.fit.minima import MINIMA, Cells, local_parabola

Parabola = tuple[Array, Array]  # coefficients, and leverage of each cell (0 outside the window)


def fit_parabola(cell: Cells, minimum: str, width: float | None) -> Parabola:
    """Return the parabola of a budget that its residuals and its record refer to."""
    if minimum == "parabola":
        return cell.solve(cell.metric)
    return local_parabola(cell, cell.metric, width)


def parabola_residuals(cell: Cells, curve: Parabola) -> Array:
    """Return the weighted residuals of the cells that the parabola describes."""
    coefficients, leverage = curve
    off = np.sqrt(cell.weight) * (cell.metric - cell.value(coefficients))
    return off[leverage > 0]


def resample_optima(
    cells: Sequence[Cells],
    curves: Sequence[Parabola],
    minimum: str,
    width: float | None,
    noise: float | None,
    resamples: int,
    seed: int,
) -> Array:
    """Return log10 of the best size per resample and budget (R, budgets); NaN if at the edge.

    Noise is added to the parabola. A local method does not know the curve outside its window, so
    there noise is added to the points.

    Args:
        cells: cells of each budget.
        curves: parabola of each budget.
        minimum: as in `fit_isoflop`.
        width: as in `fit_isoflop`.
        noise: standard deviation of the metric of one run; None: the residuals of all budgets,
            divided by sqrt(1 - leverage), with random signs.
        resamples: number of resamples R.
        seed: seed of the random generator.
    """
    pairs = list(zip(cells, curves))
    pool = np.concatenate(
        [
            parabola_residuals(cell, curve)
            / np.sqrt(np.maximum(1.0 - curve[1][curve[1] > 0], 1e-9))
            for cell, curve in pairs
        ]
    )
    rng = np.random.default_rng(seed)
    optima = []
    for cell, (coefficients, _) in pairs:
        shape = (resamples, len(cell.z))
        if noise is None:
            added = rng.choice(pool, shape) * rng.choice([-1, 1], shape)
        else:
            added = noise * rng.normal(size=shape)
        base = cell.value(coefficients) if minimum == "parabola" else cell.metric
        optima.append(MINIMA[minimum](cell, base + added / np.sqrt(cell.weight), width))
    return np.stack(optima, 1)
