"""The minimum of a summed Huber loss of log residuals: batched Levenberg-Marquardt in NumPy.

The objective of Hoffmann et al. 2022 (appendix D.2) with delta = 1e-3 is almost an absolute
deviation, flat along valleys: a quasi-Newton method started once, or stopped by its default
tolerances, halts on a valley's side. Here every start and every bootstrap resample is one row of a
batch. Resamples share the data and differ in weights alone, so thousands cost seconds.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
DELTA = 1e-3

# theta (B, p) -> residuals (B, n) and their derivatives (B, p, n): all a form has to say of itself.
Residuals = Callable[[Array], tuple[Array, Array]]


def huber(r: Array) -> Array:
    """r^2 / 2 within DELTA, DELTA (|r| - DELTA / 2) beyond."""
    size = np.abs(r)
    inner = np.minimum(size, DELTA)
    return inner * (size - 0.5 * inner)


def objective(residuals: Residuals, theta: Array, w: Array) -> tuple[Array, Array]:
    """sum_i w_i Huber(r_i) and its gradient at every row of theta (B, p), w (B, n) or (n)."""
    r, jac = residuals(theta)
    return (w * huber(r)).sum(-1), np.einsum("bn,bpn->bp", w * np.clip(r, -DELTA, DELTA), jac)


def descend(
    residuals: Residuals, theta: Array, w: Array, low: Array, high: Array, steps: int = 300
) -> tuple[Array, Array]:
    """Minimises `objective` from every row of theta (B, p) with weights w (B, n), in a box.

    Levenberg-Marquardt whose damping is the majorising (iteratively reweighted) curvature: heavily
    damped it is the always-descending reweighted step, undamped it is Newton's on the points
    within DELTA, which the almost-absolute deviation needs to end exactly. Coordinates at a bound
    that push outwards are held. Returns the ends and their objectives.
    """
    theta = np.clip(theta, low, high)
    r, jac = residuals(theta)
    value = (w * huber(r)).sum(-1)
    mu, idle = np.full(len(theta), 1e-2), np.zeros(len(theta), np.int64)
    rows, unit = np.arange(len(theta)), np.eye(theta.shape[1])
    for _ in range(steps):
        t, wt, m = theta[rows], w[rows], mu[rows]
        size = np.abs(r)
        grad = (jac @ (wt * np.clip(r, -DELTA, DELTA))[..., None])[..., 0]
        free = ~(((t <= low) & (grad > 0)) | ((t >= high) & (grad < 0)))
        curve = wt * ((size <= DELTA) + m[:, None] * DELTA / np.maximum(size, DELTA))
        hess = (jac * curve[:, None]) @ jac.swapaxes(1, 2)
        hess *= free[:, :, None] & free[:, None, :]
        ridge = 1e-12 + 1e-3 * m[:, None] * np.einsum("bpp->bp", hess)
        hess += unit * np.where(free, ridge, 1.0)[..., None]
        step = -np.linalg.solve(hess, (grad * free)[..., None])[..., 0]
        new = np.clip(t + np.clip(step, -2.0, 2.0), low, high)
        new_r, new_jac = residuals(new)
        after = (wt * huber(new_r)).sum(-1)
        better = after < value[rows]
        moved = better & (value[rows] - after > 1e-10 * value[rows])
        r[better], jac[better] = new_r[better], new_jac[better]
        theta[rows[better]], value[rows[better]] = new[better], after[better]
        mu[rows] = np.where(better, np.maximum(m * 0.3, 1e-10), m * 5.0)
        idle[rows] = np.where(moved, 0, idle[rows] + 1)
        going = (idle[rows] < 6) & (value[rows] > 1e-18)
        if not going.any():
            break
        if not going.all():
            rows, r, jac = rows[going], r[going], jac[going]
    return theta, value


def minimise(
    residuals: Residuals, grid: Array, points: int, low: Array, high: Array
) -> tuple[Array, float, Array]:
    """The best minimum from a grid of starts (S, p): it, its objective, where short descents ended.

    The starts that settle elsewhere, or crawl on a plateau, show within 40 steps; 8 are finished.
    """
    ends, values = descend(residuals, grid, np.ones((len(grid), points)), low, high, steps=40)
    first = np.argsort(values)[:8]
    finished, values = descend(residuals, ends[first], np.ones((len(first), points)), low, high)
    best = int(np.argmin(values))
    return finished[best], float(values[best]), ends


def refit(
    residuals: Residuals,
    library: Array,
    bands: Array,
    theta: Array,
    counts: Array,
    low: Array,
    high: Array,
    block: int = 256,
) -> Array:
    """Minimises every resample (counts (R, n)) and returns the minima (R, p).

    Each descends from the full fit `theta` and, in every band of the library of points (bands: a
    label per library row), from the row that suits this resample best. A block of resamples at a
    time keeps the arrays within the processor's cache.
    """
    prices = huber(residuals(library)[0])
    drawn = [np.zeros((0, len(theta)))]
    for some in (counts[i : i + block] for i in range(0, len(counts), block)):
        values = some @ prices.T
        begin = [np.broadcast_to(theta, (len(some), len(theta)))]
        for band in np.unique(bands):
            inside = np.flatnonzero(bands == band)
            begin.append(library[inside[np.argmin(values[:, inside], axis=1)]])
        weights = np.tile(some, (len(begin), 1))
        ends, ended = descend(residuals, np.concatenate(begin), weights, low, high, steps=100)
        best = np.argmin(ended.reshape(len(begin), -1), axis=0)
        drawn.append(ends.reshape(len(begin), len(some), -1)[best, np.arange(len(some))])
    return np.concatenate(drawn)
