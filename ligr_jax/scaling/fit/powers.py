"""A decreasing power with a floor, L = A X^-alpha + E, in the log-sum-exp parametrization.

theta = (a, log alpha, e): L = exp(a - alpha x) + exp(e), with x the log of the scale minus its
mean. Subtracting the mean removes the correlation between a and alpha.
"""

import numpy as np
from numpy.typing import NDArray

from ligr_jax.data.schema import BadInput

Array = NDArray[np.float64]
ALPHA = (1e-3, 3.0)  # bounds of the search; an interval that reaches one gives a warning
LOG_ZERO = 14.0  # a term below exp(-14) of the best metric counts as zero
NO_FALL = 1e-3  # a term that falls by less than this share of the metric's range does not fall


def log_power(theta: Array, x: Array) -> tuple[Array, Array]:
    """Return log L, shape (B, n), and its derivatives, (B, 3, n).

    Args:
        theta: parameters, (B, 3).
        x: centred log scale, (n,).
    """
    slope = np.exp(theta[:, 1, None]) * x
    term = np.exp(theta[:, 0, None] - slope)
    floor = np.exp(theta[:, 2, None])
    total = term + floor
    jac = np.empty((len(theta), 3, total.shape[1]))
    np.divide(term, total, out=jac[:, 0])
    np.multiply(jac[:, 0], -slope, out=jac[:, 1])
    np.divide(floor, total, out=jac[:, 2])
    return np.log(total), jac


def box(y: Array, floor: float | None = None) -> tuple[Array, Array]:
    """Return lower and upper bounds of theta, each (3,).

    Args:
        y: log metrics, (n,).
        floor: E if it is known; then both bounds of e equal its log.
    """
    zero = y.min() - LOG_ZERO
    low = np.array([zero, np.log(ALPHA[0]), zero])
    high = np.array([y.max() + 1.0, np.log(ALPHA[1]), y.max()])
    if floor is not None:
        low[-1] = high[-1] = np.log(floor) if floor else y.min() - 3 * LOG_ZERO
    return low, high


def unlog(log: Array, zero: float) -> Array:
    """Return exp(log), but 0 where the search ended at `zero`, the bound that represents zero."""
    return np.where(log <= zero, 0.0, np.exp(np.minimum(log, 700.0)))


def refuse_no_fall(
    name: str, x: Array, a: float, log_alpha: float, metric: Array, rises: bool = False
) -> None:
    """Raise BadInput if a fitted power does not fall over the runs: A = 0, or an exponent of zero.

    Args:
        name: name of the scale.
        x: centred log scale, (n,).
        a: log A of the fit.
        log_alpha: log of the exponent of the fit.
        metric: metrics of the runs, (n,).
        rises: the law is that of 1 - metric.
    """
    term = np.exp(a - np.exp(log_alpha) * np.array([x.min(), x.max()]))
    if term[0] - term[1] < NO_FALL * np.ptp(metric):
        direction = "metric does not rise" if rises else "loss does not fall"
        raise BadInput(
            f"the {direction} with {name} in these rows, so they have no law in {name}: "
            f"check which rows are comparable, or fit rows of equal {name}"
        )
