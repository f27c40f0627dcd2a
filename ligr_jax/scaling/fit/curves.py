"""Laws in compute as curves: the metric, and the metric of a run with a given residual."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ligr_jax.scaling.fit.bootstrap import Array
from ligr_jax.scaling.fit.powers import log_power


def power_curve(theta: Array, x: Array) -> Array:
    """Return E + A C^-alpha, shape (..., n).

    Args:
        theta: (..., 3), a = log A (of centred compute), log alpha, e = log E.
        x: centred log compute, (n,).
    """
    flat = np.exp(log_power(theta.reshape(-1, 3), x)[0])
    return flat.reshape(*theta.shape[:-1], len(x))


def line_curve(theta: Array, x: Array) -> Array:
    """Return level + slope x / log 10, shape (..., n).

    Args:
        theta: (..., 2), level and slope per decade.
        x: centred log compute, (n,).
    """
    result: Array = theta[..., :1] + theta[..., 1:] * x / np.log(10.0)
    return result


def saturating_curve(theta: Array, x: Array) -> Array:
    """Return ceiling - A C^-alpha = 1 - `power_curve`."""
    return 1.0 - power_curve(theta, x)


def loglog_curve(theta: Array, x: Array) -> Array:
    """Return 10 to the power of `line_curve`: a power law without a floor."""
    return 10.0 ** line_curve(theta, x)


def _add_log10_residual(y: Array, r: Array) -> Array:
    return y * 10.0**r


def _add_log_residual(y: Array, r: Array) -> Array:
    return y * np.exp(r)


def _add_residual(y: Array, r: Array) -> Array:
    return y + r


def _add_log_residual_to_gap(y: Array, r: Array) -> Array:
    return 1 - (1 - y) * np.exp(r)


@dataclass(frozen=True)
class Curve:
    """A law in compute.

    Attributes:
        value: metric from theta (..., p) and centred log compute (n,).
        off: metric of a run from the law's metric and the run's residual, which is of the metric
            (line), of its logarithm (power; loglog to base 10), or of the logarithm of 1 - metric
            (saturating).
    """

    value: Callable[[Array, Array], Array]
    off: Callable[[Array, Array], Array]


CURVES = {
    "power": Curve(value=power_curve, off=_add_log_residual),
    "line": Curve(value=line_curve, off=_add_residual),
    "loglog": Curve(value=loglog_curve, off=_add_log10_residual),
    "saturating": Curve(value=saturating_curve, off=_add_log_residual_to_gap),
}
