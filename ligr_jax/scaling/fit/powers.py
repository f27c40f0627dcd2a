"""Sums of decreasing powers: L = sum_k A_k X_k^-alpha_k + E, in the log-sum-exp parametrization.

theta = (a_1 .. a_K, log alpha_1 .. log alpha_K, e): L = sum_k exp(a_k - alpha_k x_k) + exp(e), with
x_k the log of the k-th scale (compute; or parameters and data) minus its mean. Subtracting the mean
removes the correlation between a_k and alpha_k.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ligr_jax.data.schema import BadInput

Array = NDArray[np.float64]
ALPHA = (1e-3, 3.0)  # bounds of the search; an interval that reaches one gives a warning
LOG_ZERO = 14.0  # a term below exp(-14) of the best metric counts as zero
NO_FALL = 1e-3  # a term that falls by less than this share of the metric's range does not fall


def log_sum(theta: Array, x: Sequence[Array]) -> tuple[Array, Array]:
    """Return log L, shape (B, n), and its derivatives, (B, 2K + 1, n).

    Args:
        theta: parameters, (B, 2K + 1).
        x: K centred log scales, each (n,) or (B, n).
    """
    k = len(x)
    slopes = [np.exp(theta[:, k + i, None]) * x[i] for i in range(k)]
    terms = [np.exp(theta[:, i, None] - slopes[i]) for i in range(k)]
    floor = np.exp(theta[:, 2 * k, None])
    total = sum(terms, floor)
    jac = np.empty((len(theta), 2 * k + 1, total.shape[1]))
    for i in range(k):
        np.divide(terms[i], total, out=jac[:, i])
        np.multiply(jac[:, i], -slopes[i], out=jac[:, k + i])
    np.divide(floor, total, out=jac[:, 2 * k])
    return np.log(total), jac


def box(y: Array, floor: float | None = None, terms: int = 1) -> tuple[Array, Array]:
    """Return lower and upper bounds of theta, each (2 terms + 1,).

    Args:
        y: log metrics, (n,).
        floor: E if it is known; then both bounds of e equal its log.
        terms: number of powers K.
    """
    zero = y.min() - LOG_ZERO
    low = np.array([zero] * terms + [np.log(ALPHA[0])] * terms + [zero])
    high = np.array([y.max() + 1.0] * terms + [np.log(ALPHA[1])] * terms + [y.max()])
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
