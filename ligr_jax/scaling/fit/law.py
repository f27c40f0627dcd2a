"""Results of a fit: estimates, intervals, predictions; and the input checks common to all fits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit.bootstrap import Array, budgets, tails
from ligr_jax.scaling.fit.powers import log_sum
from ligr_jax.strict_json import nan_to_null

VERSION = "1"  # version of the estimators: changes when equal runs would give different numbers


def power_curve(theta: Array, x: Array) -> Array:
    """Return E + A C^-alpha, shape (..., n).

    Args:
        theta: (..., 3), a = log A (of centred compute), log alpha, e = log E.
        x: centred log compute, (n,).
    """
    flat = np.exp(log_sum(theta.reshape(-1, 3), [x])[0])
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


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Estimates of a law, their intervals, and the runs they come from.

    Attributes:
        form: name of the law.
        params: estimates by name.
        intervals: bootstrap interval of each estimate; empty without resamples.
        confidence: nominal coverage of the intervals.
        objective: sum of Huber terms of log residuals; for a line, the sum of squares.
        points: number of runs.
        units: number of units the bootstrap draws: runs, or groups of runs.
        resamples: number of resamples used.
        runs: names of the runs.
        warnings: what the runs do not determine.
        free: number of fitted parameters.
        version: version of the estimators.
        theta: estimate in the coordinates of the search, (p,).
        draws: estimates of the resamples in those coordinates, (R, p).
        residuals: residual of each run, (n,).
    """

    form: str
    params: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    confidence: float
    objective: float
    points: int
    units: int
    resamples: int
    runs: tuple[str, ...]
    warnings: tuple[str, ...]
    free: int
    version: str = VERSION
    theta: Array = field(repr=False, compare=False)
    draws: Array = field(repr=False, compare=False)
    residuals: Array = field(repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return all fields except arrays as plain JSON values; NaN and infinity become null."""
        result: dict[str, Any] = nan_to_null(
            {f.name: getattr(self, f.name) for f in fields(self) if f.repr}
        )
        return result

    def spread(self, run_noise: bool) -> Array:
        """Return possible residuals of a further run: (n,), or a single zero without run noise.

        They are the residuals of the fit times sqrt(n / (n - parameters)), because a fit makes the
        residuals of its own points smaller than those of a new point.
        """
        inflation = np.sqrt(self.points / max(1, self.points - self.free))
        return self.residuals * inflation if run_noise else np.zeros(1)


@dataclass(frozen=True, kw_only=True)
class Law(Fitted):
    """Law of a metric against compute.

    `params` has E, A, alpha (power); ceiling, A, alpha (saturating); or level (at the mean of
    log C) and slope per decade (line). These have gain_per_decade, the improvement over the last
    decade of compute of the runs, in metric units. A law of optima (loglog) has exponent and
    coefficient.

    Attributes:
        compute: smallest and largest compute of the runs, FLOPs.
        centre: mean of log compute.
    """

    compute: tuple[float, float]
    centre: float = field(repr=False)

    def predict(self, compute: ArrayLike, run_noise: bool = False) -> tuple[Array, Array, Array]:
        """Predict the metric at `compute` FLOPs.

        Args:
            compute: FLOPs, any shape.
            run_noise: False: the interval covers the law, i.e. the mean over runs. True: it covers
                the metric of one further run; every draw of the law is combined with every
                residual (see `spread`).

        Returns:
            Value, low and high, each of the shape of `compute`. Low and high are NaN without
            resamples.
        """
        shape = np.shape(compute)
        x = np.log(np.asarray(compute, np.float64)).ravel() - self.centre
        curve = CURVES[self.form]
        value = curve.value(self.theta, x)
        draws = curve.value(self.draws, x)
        noisy = curve.off(draws[:, None], self.spread(run_noise)[:, None])
        low, high = percentile_interval(noisy.reshape(-1, x.size), self.confidence)
        return value.reshape(shape), low.reshape(shape), high.reshape(shape)


def percentile_interval(
    draws: Array, confidence: float, freedom: int | None = None
) -> tuple[Array, Array]:
    """Return low and high quantiles over the first axis (see `bootstrap.tails`).

    Args:
        draws: (R, ...).
        confidence: nominal coverage.
        freedom: degrees of freedom of the noise estimate, for expanded percentiles.

    Returns:
        Low and high, each of the shape of one draw; NaN if R = 0.
    """
    if not len(draws):
        nan = np.full(draws.shape[1:], np.nan)
        return nan, nan.copy()
    low, high = np.quantile(draws, tails(confidence, freedom), axis=0)
    return low, high


def estimates(
    named: Callable[[Array], dict[str, Array]],
    theta: Array,
    draws: Array,
    confidence: float,
    freedom: int | None = None,
) -> tuple[dict[str, float], dict[str, tuple[float, float]], list[str]]:
    """Return named estimates, their intervals, and notes.

    A percentile interval that excludes its own estimate says that the resamples have another
    optimum than the runs: such an interval is left out, with a note.

    Args:
        named: maps theta (..., p) to named quantities (...).
        theta: the estimate, (p,).
        draws: estimates of the resamples, (R, p).
        confidence: nominal coverage.
        freedom: see `interval`.

    Returns:
        The quantities of theta; the interval of each over the draws (empty if R = 0); a note per
        interval that is left out.
    """
    params = {k: float(v) for k, v in named(theta).items()}
    spans: dict[str, tuple[float, float]] = {}
    notes = []
    for name, values in named(draws).items() if len(draws) else ():
        low, high = (float(v) for v in percentile_interval(values, confidence, freedom))
        slack = 1e-9 * abs(params[name])  # rounding of draws that all equal the estimate
        if low - slack <= params[name] <= high + slack:
            spans[name] = (low, high)
        else:
            notes.append(
                f"{name} has no interval: the resamples give {low:.3g} to {high:.3g}, which "
                f"excludes the estimate {params[name]:.3g}; add runs, or groups of runs"
            )
    return params, spans, notes


def names_of(runs: Sequence[str], values: ArrayLike) -> tuple[str, ...]:
    """Return the names of the runs; "#0", "#1", ... (one per value) if none are given."""
    return tuple(runs) or tuple(f"#{i}" for i in range(np.size(values)))


def families_of(
    family: Sequence[Any] | None, runs: int
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the families in order of appearance, and the number of each run's family, (runs,).

    Without labels all runs are of one family without a name.

    Raises:
        BadInput: there is not one label per run.
    """
    labels = [""] * runs if family is None else [str(f) for f in family]
    if len(labels) != runs:
        raise BadInput(f"{len(labels)} families for {runs} runs: give one family label per run")
    families = tuple(dict.fromkeys(labels))
    return families, np.array([families.index(label) for label in labels])


def index_of_family(families: tuple[str, ...], family: str) -> int:
    """Return the number of a family; "" is the only one of a law without families.

    Raises:
        BadInput: no family has this label.
    """
    if family not in families:
        raise BadInput(f"family {family!r}: the law has the families {', '.join(families)}")
    return families.index(family)


def checked(names: tuple[str, ...], metric: ArrayLike, **scales: ArrayLike) -> list[Array]:
    """Convert the metric and the scales to float64 and check them.

    Args:
        names: names of the runs.
        metric: one value per run.
        **scales: named scales (compute, n, d, ...), one value per run.

    Returns:
        The metric, then the scales in the order given, each of shape (n,).

    Raises:
        BadInput: a shape is wrong, a metric is not finite, or a scale is not positive. The message
            names the run.
    """
    y = np.asarray(metric, np.float64)
    arrays = {name: np.asarray(values, np.float64) for name, values in scales.items()}
    if y.ndim != 1 or any(v.shape != (len(names),) for v in (y, *arrays.values())):
        shapes = ", ".join(f"{k} {v.shape}" for k, v in arrays.items())
        raise BadInput(
            f"{shapes}, metric {y.shape}, {len(names)} runs: give one value of each per run"
        )
    for i, name in enumerate(names):
        for scale, values in arrays.items():
            if not np.isfinite(values[i]) or values[i] <= 0:
                unit = " number of FLOPs" if scale == "compute" else " number"
                raise BadInput(f"run {name}: {scale} {values[i]:g} is not a positive{unit}")
        if not np.isfinite(y[i]):
            raise BadInput(f"run {name}: metric is {y[i]:g}; leave diverged runs out")
    return [y, *arrays.values()]


def refuse_few(runs: int, needed: int) -> None:
    """Raise BadInput if there are fewer runs than parameters."""
    if runs < needed:
        raise BadInput(f"{runs} runs cannot determine {needed} parameters; add runs")


def refuse_constant(y: Array) -> None:
    """Raise BadInput if the metric is equal in all runs."""
    if np.ptp(y) <= 1e-12 * np.abs(y).max():
        raise BadInput(f"the metric is {y[0]:g} in every run: nothing to fit")


def refuse_one_budget(c: Array, needed: int) -> None:
    """Raise BadInput if there are fewer distinct budgets than parameters."""
    count = int(budgets(c).max()) + 1
    if count == 1:
        raise BadInput(
            f"all {len(c)} runs have one compute budget ({c[0]:g}): a law needs several budgets"
        )
    if count < needed:
        raise BadInput(f"{count} budgets cannot determine {needed} parameters; add budgets")


def refuse_no_logarithm(names: tuple[str, ...], y: Array) -> None:
    """Raise BadInput if a metric is not positive."""
    if np.any(y <= 0):
        raise BadInput(f"run {names[int(np.argmin(y))]}: metric {y.min():g} <= 0 has no logarithm")
