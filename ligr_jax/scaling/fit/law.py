"""What a fit gives: estimates with intervals, and predictions. And what every fit refuses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit.bootstrap import Array, budgets, tails
from ligr_jax.scaling.fit.powers import log_sum

VERSION = "1"  # of the estimators: changes whenever the same runs would give other numbers


def power_curve(theta: Array, x: Array) -> Array:
    """E + A C^-alpha at theta (..., 3) = (a, log alpha, e) and centred log compute x (n)."""
    flat = np.exp(log_sum(theta.reshape(-1, 3), [x])[0])
    return flat.reshape(*theta.shape[:-1], len(x))


def line_curve(theta: Array, x: Array) -> Array:
    """level + slope x / log 10 at theta (..., 2) = (level, slope), slope per decade."""
    return theta[..., :1] + theta[..., 1:] * x / np.log(10.0)


@dataclass(frozen=True)
class Curve:
    """A form in one scale: the metric from theta and x, and the metric of a run off by a residual.

    `off` undoes `residual`: both work on any shapes that broadcast.
    """

    value: Callable[[Array, Array], Array]
    off: Callable[[Array, Array], Array]


CURVES = {
    "power": Curve(power_curve, lambda y, r: y * np.exp(r)),
    "line": Curve(line_curve, lambda y, r: y + r),
    "saturating": Curve(lambda t, x: 1.0 - power_curve(t, x), lambda y, r: 1 - (1 - y) * np.exp(r)),
}


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What was estimated, how surely, from which runs.

    params, intervals: estimates, and the interval of each at `confidence` (none without resamples).
    objective: sum of Huber terms of log residuals; of a line, the sum of squares.
    units: what the bootstrap drew: runs, or groups of runs. free: number of fitted parameters.
    theta, draws, residuals: the estimate in its own coordinates, which `predict` reads.
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
        """Everything but the arrays, as plain JSON values (NaN and infinity become null)."""
        return plain({f.name: getattr(self, f.name) for f in fields(self) if f.repr})

    def spread(self, run_noise: bool) -> Array:
        """Residuals a further run may have: each one seen, widened because the fit has seen it."""
        wider = np.sqrt(self.points / max(1, self.points - self.free))
        return self.residuals * wider if run_noise else np.zeros(1)


@dataclass(frozen=True, kw_only=True)
class Law(Fitted):
    """A metric against compute.

    params: power: E, A, alpha; saturating: ceiling, A, alpha; line: level (at the mean of log C),
    slope (per decade). All: gain_per_decade, the improvement over the last decade of compute seen,
    in metric units. compute: the range seen, FLOPs.
    """

    compute: tuple[float, float]
    centre: float = field(repr=False)

    def predict(self, compute: ArrayLike, run_noise: bool = False) -> tuple[Array, Array, Array]:
        """Value, low and high at `compute` FLOPs (any shape); low and high are NaN without draws.

        The interval is of the law; with `run_noise` of one further run: every draw takes every
        residual, widened by sqrt(n / (n - parameters)) because the fit has seen them.
        """
        shape = np.shape(compute)
        x = np.log(np.asarray(compute, np.float64)).ravel() - self.centre
        curve = CURVES[self.form]
        value, draws = curve.value(self.theta, x), curve.value(self.draws, x)
        noisy = curve.off(draws[:, None], self.spread(run_noise)[:, None])
        low, high = interval(noisy.reshape(-1, x.size), self.confidence)
        return value.reshape(shape), low.reshape(shape), high.reshape(shape)


def interval(draws: Array, confidence: float, freedom: int | None = None) -> tuple[Array, Array]:
    """Low and high over the first axis (see `bootstrap.tails`); NaN without draws."""
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
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """What `named` reads off the estimate, and its intervals over the draws (none without)."""
    params = {k: float(v) for k, v in named(theta).items()}
    if not len(draws):
        return params, {}
    spans = {k: interval(v, confidence, freedom) for k, v in named(draws).items()}
    return params, {k: (float(low), float(high)) for k, (low, high) in spans.items()}


def plain(value: Any) -> Any:
    """A value as JSON has it: tuples are lists, NaN and infinity null, NumPy's numbers numbers."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value


def names_of(runs: Sequence[str], like: ArrayLike) -> tuple[str, ...]:
    """The runs' names, or their numbers."""
    return tuple(runs) or tuple(f"#{i}" for i in range(np.size(like)))


def checked(names: tuple[str, ...], metric: ArrayLike, **scales: ArrayLike) -> list[Array]:
    """The metric and the scales (compute, n, d ...) as float64, one value each per run.

    Raises BadInput, naming the run: metrics must be finite, scales positive.
    """
    y = np.asarray(metric, np.float64)
    found = {name: np.asarray(values, np.float64) for name, values in scales.items()}
    if y.ndim != 1 or any(v.shape != (len(names),) for v in (y, *found.values())):
        shapes = ", ".join(f"{k} {v.shape}" for k, v in found.items())
        raise BadInput(f"{shapes}, metric {y.shape}, {len(names)} runs: one each per run")
    for i, name in enumerate(names):
        for scale, values in found.items():
            if not np.isfinite(values[i]) or values[i] <= 0:
                unit = " number of FLOPs" if scale == "compute" else " number"
                raise BadInput(f"run {name}: {scale} {values[i]:g} is not a positive{unit}")
        if not np.isfinite(y[i]):
            raise BadInput(f"run {name}: metric is {y[i]:g}; leave diverged runs out")
    return [y, *found.values()]


def refuse_few(runs: int, needed: int) -> None:
    """Raises BadInput where there are fewer runs than parameters."""
    if runs < needed:
        raise BadInput(f"{runs} runs cannot determine {needed} parameters; add runs")


def refuse_constant(y: Array) -> None:
    """Raises BadInput where the metric does not move."""
    if np.ptp(y) <= 1e-12 * np.abs(y).max():
        raise BadInput(f"the metric is {y[0]:g} in every run: nothing to fit")


def refuse_one_budget(c: Array, needed: int) -> None:
    """Raises BadInput where the distinct budgets are fewer than the parameters."""
    found = int(budgets(c).max()) + 1
    if found == 1:
        raise BadInput(f"all {len(c)} runs have one compute budget ({c[0]:g}): no law in compute")
    if found < needed:
        raise BadInput(f"{found} budgets cannot determine {needed} parameters; add budgets")


def refuse_no_logarithm(names: tuple[str, ...], y: Array) -> None:
    """Raises BadInput where a metric that must be positive is not."""
    if np.any(y <= 0):
        raise BadInput(f"run {names[int(np.argmin(y))]}: metric {y.min():g} <= 0 has no logarithm")
