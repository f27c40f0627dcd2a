"""The power law's objective and its minimum: batched Levenberg-Marquardt in NumPy.

Coordinates are (a, log alpha, e): L = exp(a - alpha x) + exp(e), x centred log compute.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
DELTA = 1e-3
ALPHA = (1e-3, 3.0)  # bounds of the search; an interval that reaches one is reported
LOG_ZERO = 14.0  # E below exp(-14) of the best metric is zero


def power_curve(theta: Array, x: Array) -> Array:
    """E + A C^-alpha at theta (..., 3) = (a, log alpha, e) and centred log compute x (n)."""
    a, v, e = (theta[..., i, None] for i in range(3))
    return np.exp(np.logaddexp(a - np.exp(v) * x, e))


def huber(r: Array) -> Array:
    """r^2 / 2 within DELTA, DELTA (|r| - DELTA / 2) beyond."""
    size = np.abs(r)
    return np.where(size <= DELTA, 0.5 * r * r, DELTA * (size - 0.5 * DELTA))


def power_objective(theta: Array, x: Array, y: Array, w: Array) -> tuple[Array, Array]:
    """sum_i w_i Huber(LSE(a - alpha x_i, e) - y_i) and its gradient, for theta (..., 3)."""
    r, jac = _residuals(theta, x, y)
    return (w * huber(r)).sum(-1), np.einsum("...n,...np->...p", w * np.clip(r, -DELTA, DELTA), jac)


def descend_power(
    theta: Array, x: Array, y: Array, w: Array, low: Array, high: Array, steps: int = 300
) -> tuple[Array, Array]:
    """Minimises `power_objective` from every row of theta (B, 3) with weights w (B, n), in a box.

    Levenberg-Marquardt whose damping is the majorising (iteratively reweighted) curvature: heavily
    damped it is the always-descending reweighted step, undamped it is Newton's on the points
    within DELTA, which the almost-absolute deviation needs to end exactly. Coordinates at a bound
    that push outwards are held. Returns the ends and their objectives.
    """
    theta = np.clip(theta, low, high)
    value, _ = power_objective(theta, x, y, w)
    mu, idle = np.full(len(theta), 1e-2), np.zeros(len(theta), np.int64)
    rows = np.arange(len(theta))
    for _ in range(steps):
        t, wt, m = theta[rows], w[rows], mu[rows]
        r, jac = _residuals(t, x, y)
        size = np.abs(r)
        grad = np.einsum("bn,bnp->bp", wt * np.clip(r, -DELTA, DELTA), jac)
        free = ~(((t <= low) & (grad > 0)) | ((t >= high) & (grad < 0)))
        curve = wt * ((size <= DELTA) + m[:, None] * DELTA / np.maximum(size, DELTA))
        hess = (jac * curve[..., None]).swapaxes(1, 2) @ jac
        hess *= free[:, :, None] & free[:, None, :]
        ridge = 1e-12 + 1e-3 * m[:, None] * np.einsum("bpp->bp", hess)
        hess += np.eye(3) * np.where(free, ridge, 1.0)[..., None]
        step = -np.linalg.solve(hess, (grad * free)[..., None])[..., 0]
        new = np.clip(t + np.clip(step, -2.0, 2.0), low, high)
        after, _ = power_objective(new, x, y, wt)
        better = after < value[rows]
        moved = better & (value[rows] - after > 1e-10 * value[rows])
        theta[rows[better]], value[rows[better]] = new[better], after[better]
        mu[rows] = np.where(better, np.maximum(m * 0.3, 1e-10), m * 5.0)
        idle[rows] = np.where(moved, 0, idle[rows] + 1)
        rows = rows[(idle[rows] < 6) & (value[rows] > 1e-18)]
        if not len(rows):
            break
    return theta, value


def _residuals(theta: Array, x: Array, y: Array) -> tuple[Array, Array]:
    a, v, e = (theta[..., i, None] for i in range(3))
    slope = np.exp(v) * x
    log_l = np.logaddexp(a - slope, e)
    share = np.exp(a - slope - log_l)  # of the power term in the metric
    return log_l - y, np.stack([share, -share * slope, 1.0 - share], -1)


def box(y: Array, floor: float | None) -> tuple[Array, Array]:
    """Bounds of the search for log metrics y; both equal in e where the floor is given."""
    zero = y.min() - LOG_ZERO
    low = np.array([zero, np.log(ALPHA[0]), zero])
    high = np.array([y.max() + 1.0, np.log(ALPHA[1]), y.max()])
    if floor is not None:
        low[2] = high[2] = np.log(floor) if floor else y.min() - 3 * LOG_ZERO
    return low, high


def starts(x: Array, y: Array, low: Array, high: Array) -> Array:
    """A grid over alpha and the share of E in the best metric, (56, 3)."""
    alpha, share = np.meshgrid(np.geomspace(0.01, 2.0, 8), [1e-6, 0.3, 0.6, 0.8, 0.9, 0.97, 0.995])
    e = np.clip(y.min() + np.log(share.ravel()), low[2], high[2])
    a = np.log(np.exp(y.mean()) - np.minimum(np.exp(e), 0.999 * np.exp(y.mean())))
    return np.stack([a, np.log(alpha.ravel()), e], -1)


def refit(
    library: Array, theta: Array, x: Array, y: Array, counts: Array, low: Array, high: Array
) -> Array:
    """Refits every resample from the full fit and from its own best point in each band of alpha."""
    if not len(counts):
        return np.zeros((0, 3))
    values = counts @ huber(_residuals(library, x, y)[0]).T
    bands = np.digitize(library[:, 1], np.log([0.05, 0.3, 1.0]))
    begin = [np.broadcast_to(theta, (len(counts), 3))]
    for band in np.unique(bands):
        inside = np.flatnonzero(bands == band)
        begin.append(library[inside[np.argmin(values[:, inside], axis=1)]])
    many, weights = len(begin), np.tile(counts, (len(begin), 1))
    ends, ended = descend_power(np.concatenate(begin), x, y, weights, low, high, steps=100)
    best = np.argmin(ended.reshape(many, -1), axis=0)
    return ends.reshape(many, -1, 3)[best, np.arange(len(counts))]
