"""Minimization of a summed Huber loss of log residuals: batched Levenberg-Marquardt in NumPy.

The objective of Hoffmann et al. 2022 (appendix D.2) with delta = 1e-3 is close to an absolute
deviation and flat along valleys: a quasi-Newton method with one start, or with its default
tolerances, stops on the side of a valley. Here every start and every bootstrap resample is one row
of a batch. Resamples share the data and differ only in weights, so thousands of them take seconds.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
DELTA = 1e-3

# theta (B, p) -> residuals (B, n) and their derivatives (B, p, n). A law is defined by this alone.
Residuals = Callable[[Array], tuple[Array, Array]]


class Minimum(NamedTuple):
    """Result of `fit_residuals`.

    Attributes:
        theta: parameters, (p,).
        objective: sum of Huber terms at theta.
        residuals: residual of each run at theta, (n,).
        draws: parameters of each resample, (R, p).
    """

    theta: Array
    objective: float
    residuals: Array
    draws: Array


def fit_residuals(
    residuals: Residuals,
    grid: Array,
    band_of: Callable[[Array], NDArray[np.int64]],
    counts: Array,
    low: Array,
    high: Array,
    weights: Array | None = None,
) -> Minimum:
    """Fit a law to the runs, then to every bootstrap resample: the procedure of all robust fits.

    Args:
        residuals: the law.
        grid: starts of the fit, (S, p).
        band_of: maps parameters (S, p) to bands (S,), e.g. small and large exponents; the refit of
            a resample starts from one candidate in each band (see `refit`).
        counts: weight of each run in each resample, (R, n).
        low: lower bounds, (p,).
        high: upper bounds, (p,).
        weights: weight of each run in the fit to the runs, (n,); None: 1.
    """
    weights = np.ones(counts.shape[1]) if weights is None else weights
    theta, value, ends = minimise(residuals, grid, weights, low, high)
    library = np.concatenate([grid, ends])
    draws = refit(residuals, library, band_of(library), theta, counts, low, high)
    return Minimum(theta, value, residuals(theta[None])[0][0], draws)


def huber(r: Array) -> Array:
    """Return r^2 / 2 for |r| <= DELTA, else DELTA (|r| - DELTA / 2). Any shape."""
    size = np.abs(r)
    inner = np.minimum(size, DELTA)
    return inner * (size - 0.5 * inner)


def objective(residuals: Residuals, theta: Array, w: Array) -> tuple[Array, Array]:
    """Return sum_i w_i Huber(r_i), shape (B,), and its gradient, (B, p).

    Args:
        residuals: the law.
        theta: parameters, (B, p).
        w: weight of each run, (B, n) or (n,).
    """
    r, jac = residuals(theta)
    return (w * huber(r)).sum(-1), np.einsum("bn,bpn->bp", w * np.clip(r, -DELTA, DELTA), jac)


def descend(
    residuals: Residuals, theta: Array, w: Array, low: Array, high: Array, steps: int = 300
) -> tuple[Array, Array]:
    """Minimize `objective` in a box from every row of theta.

    Levenberg-Marquardt whose damping term is the majorizing curvature of iteratively reweighted
    least squares. With large damping it is the reweighted step, which always descends; with small
    damping it is a Newton step on the points within DELTA, which is needed to converge exactly.

    Args:
        residuals: the law.
        theta: starts, (B, p).
        w: weight of each run, (B, n).
        low: lower bounds, (p,).
        high: upper bounds, (p,).
        steps: largest number of steps.

    Returns:
        The minima, (B, p), and their objectives, (B,).
    """
    theta = np.clip(theta, low, high)
    r, jac = residuals(theta)
    value = (w * huber(r)).sum(-1)
    mu = np.full(len(theta), 1e-2)  # damping
    idle = np.zeros(len(theta), np.int64)  # steps in a row without progress
    rows = np.arange(len(theta))  # rows that have not converged
    unit = np.eye(theta.shape[1])
    for _ in range(steps):
        t = theta[rows]
        wt = w[rows]
        m = mu[rows]
        size = np.abs(r)
        grad = (jac @ (wt * np.clip(r, -DELTA, DELTA))[..., None])[..., 0]
        # A coordinate at a bound is fixed while its gradient points out of the box.
        free = ~(((t <= low) & (grad > 0)) | ((t >= high) & (grad < 0)))
        # Newton's curvature inside DELTA, plus the damped majorizing curvature everywhere. The
        # ridge keeps the matrix regular where a parameter has no influence.
        curve = wt * ((size <= DELTA) + m[:, None] * DELTA / np.maximum(size, DELTA))
        hess = (jac * curve[:, None]) @ jac.swapaxes(1, 2)
        hess *= free[:, :, None] & free[:, None, :]
        ridge = 1e-12 + 1e-3 * m[:, None] * np.einsum("bpp->bp", hess)
        hess += unit * np.where(free, ridge, 1.0)[..., None]
        step = -np.linalg.solve(hess, (grad * free)[..., None])[..., 0]
        new = np.clip(t + np.clip(step, -2.0, 2.0), low, high)
        new_r, new_jac = residuals(new)
        after = (wt * huber(new_r)).sum(-1)
        # Rows accept a step only if the objective falls, and adapt their damping separately.
        better = after < value[rows]
        moved = better & (value[rows] - after > 1e-10 * value[rows])
        r[better] = new_r[better]
        jac[better] = new_jac[better]
        theta[rows[better]] = new[better]
        value[rows[better]] = after[better]
        mu[rows] = np.where(better, np.maximum(m * 0.3, 1e-10), m * 5.0)
        idle[rows] = np.where(moved, 0, idle[rows] + 1)
        # Converged rows leave the batch: the slowest rows take many more steps than most.
        active = (idle[rows] < 6) & (value[rows] > 1e-18)
        if not active.any():
            break
        if not active.all():
            rows, r, jac = rows[active], r[active], jac[active]
    return theta, value


def minimise(
    residuals: Residuals, grid: Array, weights: Array, low: Array, high: Array
) -> tuple[Array, float, Array]:
    """Find the best minimum from a grid of starts.

    All starts descend for 40 steps, which separates the bad minima and plateaus from the rest; the
    best 8 are then descended to convergence.

    Args:
        residuals: the law.
        grid: starts, (S, p).
        weights: weight of each run, (n,).
        low: lower bounds, (p,).
        high: upper bounds, (p,).

    Returns:
        The minimum, (p,); its objective; the ends of the short descents, (S, p).
    """
    tiled = np.tile(weights, (len(grid), 1))
    ends, values = descend(residuals, grid, tiled, low, high, steps=40)
    promising = ends[np.argsort(values)[:8]]
    minima, values = descend(residuals, promising, tiled[: len(promising)], low, high)
    best = int(np.argmin(values))
    return minima[best], float(values[best]), ends


def refit(
    residuals: Residuals,
    library: Array,
    bands: NDArray[np.int64],
    theta: Array,
    counts: Array,
    low: Array,
    high: Array,
    block: int = 256,
) -> Array:
    """Refit the law to every bootstrap resample.

    Each resample descends from several starts and keeps the best end: the full fit `theta`, and
    from each band of `library` (e.g. small and large exponents) the row with the lowest objective
    on this resample. The bands keep a resample from ending in the full fit's valley only because
    it started there.

    Args:
        residuals: the law.
        library: candidate starts, (S, p).
        bands: band label of each candidate, (S,).
        theta: minimum of the full fit, (p,).
        counts: weight of each run in each resample, (R, n).
        low: lower bounds, (p,).
        high: upper bounds, (p,).
        block: resamples per batch; the arrays of a block fit in the processor's cache.

    Returns:
        The minima, (R, p).
    """
    # The objective of a candidate on a resample is linear in the counts: one matrix product.
    losses = huber(residuals(library)[0])
    draws = [np.zeros((0, len(theta)))]
    for weights in (counts[i : i + block] for i in range(0, len(counts), block)):
        values = weights @ losses.T
        starts = [np.broadcast_to(theta, (len(weights), len(theta)))]
        for band in np.unique(bands):
            in_band = np.flatnonzero(bands == band)
            starts.append(library[in_band[np.argmin(values[:, in_band], axis=1)]])
        tiled = np.tile(weights, (len(starts), 1))
        ends, objectives = descend(residuals, np.concatenate(starts), tiled, low, high, steps=100)
        best = np.argmin(objectives.reshape(len(starts), -1), axis=0)
        draws.append(ends.reshape(len(starts), len(weights), -1)[best, np.arange(len(weights))])
    return np.concatenate(draws)
