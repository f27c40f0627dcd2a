"""Exponents of 15 iso-FLOP studies on the grid of Porian et al. 2024 (arXiv 2406.19146).

Their optima and points are published as pickles only (formll/resolving-scaling-law-discrepancies),
so the points here are simulated: their 12 budgets, their 16 sizes and the noise between seeds that
their configuration assumes (.002 of the loss for RefinedWeb, .01 for OpenWebText2), on surfaces
whose exponents are near those of their five experiments. `estimator` follows their procedure.
"""

from typing import NamedTuple

import numpy as np
import pytest
from scipy.interpolate import Akima1DInterpolator

from ligr_jax.scaling.fit import fit_isoflop, fit_loglog

SIZES = np.array([
    5173248, 7503872, 9809920, 15597568, 22487040, 28672000, 37060608, 57384960, 84787200,
    108462080, 149045248, 220872704, 347078656, 455311360, 611958784, 901726208,
])  # fmt: skip
BUDGETS = 1e17 * 2.0 ** np.arange(-3, 9)
STUDIES = [
    (exponent, noise, seed)
    for exponent in (0.84, 0.70, 0.62, 0.58, 0.50)
    for noise, seed in ((2e-3, 0), (2e-3, 1), (1e-2, 2))
]


class Optima(NamedTuple):
    compute: np.ndarray
    size: np.ndarray
    std: np.ndarray  # of log size


def simulated(exponent, noise, seed):
    """The sizes within a factor 10 of the best at each budget, and their losses with noise."""
    rng = np.random.default_rng(seed)
    alpha, beta = 0.7 * (1 - exponent), 0.7 * exponent
    a, c0, n0 = 0.9, 6e17, 6e7  # 6e7 parameters are the best at 6e17 FLOPs
    rows = []
    for c in BUDGETS:
        n = SIZES[np.abs(np.log10(SIZES / n0 / (c / c0) ** exponent)) < 1]
        d = (c / n) / (c0 / n0)
        loss = 1.8 + a * (n / n0) ** -alpha + a * alpha / beta * d**-beta
        rows.append((np.full(len(n), c), n, loss + noise * rng.normal(size=len(n))))
    return [np.concatenate(column) for column in zip(*rows)]


def estimator(compute, size, loss, noise, draws=1000):
    """Their optima: Akima's interpolation of log losses on a grid, in 1000 draws of the noise."""
    rng = np.random.default_rng(0)
    rows = []
    for c in BUDGETS:
        z, y = np.log(size[compute == c]), loss[compute == c]
        grid = np.linspace(z[0], z[-1], 25 * (len(z) - 1))
        noisy = np.log(y + noise * rng.normal(size=(draws, len(z))))
        least = Akima1DInterpolator(z, noisy, axis=1)(grid).argmin(axis=1)
        inside = (least > 0) & (least < len(grid) - 1)
        edge = Akima1DInterpolator(z, np.log(y))(grid).argmin() in (0, len(grid) - 1)
        if not edge and inside.mean() >= 0.5:
            best = grid[least[inside]]
            std = max(best.std(), 0.33 * 25 * (grid[1] - grid[0])) / inside.mean()
            rows.append((c, np.exp(np.median(best)), std))
    return Optima(*np.array(rows).T)


@pytest.mark.parametrize(("exponent", "noise", "seed"), STUDIES)
def test_exponents_from_optima_to_four_decimals_and_from_points_within_a_hundredth(
    exponent, noise, seed
):
    points = simulated(exponent, noise, seed)
    optima = estimator(*points, noise)
    x, y = np.log(optima.compute), np.log(optima.size)
    theirs = np.polyfit(x, y, 1, w=1 / optima.std)[0]
    law = fit_loglog(optima.compute, optima.size, weights=optima.std**-2, resamples=0)
    assert law.params["exponent"] == pytest.approx(theirs, abs=5e-5)
    ours = fit_isoflop(*points, minimum="akima", weighted=True, noise=noise, resamples=500)
    assert ours.params["exponent"] == pytest.approx(theirs, abs=0.01)
    if noise == 2e-3 and exponent <= 0.7:  # the valleys of .84 are too flat for one study
        window = fit_isoflop(*points, minimum="window", weighted=True, resamples=200)
        assert window.params["exponent"] == pytest.approx(exponent, abs=0.01)
