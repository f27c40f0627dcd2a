"""Laws fitted to tables of runs, with bootstrap intervals. NumPy and SciPy only.

Two forms of a metric L against compute C:

    power   L(C) = E + A C^-alpha        E >= 0 free or fixed, alpha > 0: what a loss does
    line    L(C) = level + slope log10 C  what AUC does over the few decades one can afford

The power law is fitted as in Hoffmann et al. 2022 (appendix D.2): the SUM over runs of
Huber_delta(LSE(a - alpha x, e) - log L) with delta = 1e-3, x = log C less its mean (which takes the
correlation out of a and alpha), e = log E. That objective is almost an absolute deviation, flat
along a valley in (alpha, E): a quasi-Newton method started once, or stopped by its default
tolerances, halts on the valley's side. Here every start and every bootstrap resample is one row of
a batched Levenberg-Marquardt descent with the analytic gradient; resamples share the data and
differ in weights alone, so a thousand of them cost about a second. The tests hold its optimum
against differential evolution and its resamples against fits made one by one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.bootstrap import budgets, resample
from ligr_jax.scaling.descent import (
    ALPHA,
    LOG_ZERO,
    Array,
    box,
    descend_power,
    power_curve,
    refit,
    starts,
)

VERSION = "1"  # of the estimator: changes whenever the same runs would give other numbers
CONFIDENCE = 0.90

Form = Literal["power", "line"]


def line_curve(theta: Array, x: Array) -> Array:
    """level + slope x / log 10 at theta (..., 2) = (level, slope), slope per decade."""
    return theta[..., :1] + theta[..., 1:] * x / np.log(10.0)


CURVES: dict[str, Callable[[Array, Array], Array]] = {"power": power_curve, "line": line_curve}


@dataclass(frozen=True)
class Law:
    """A fitted law: what was estimated, how surely, from which runs.

    params: power: E, A, alpha; line: level (at the mean of log C), slope (per decade). Both:
        gain_per_decade, the improvement over the last decade of compute seen, in metric units.
    intervals: percentile interval of each at `confidence`; empty when no resamples were asked for.
    objective: power: sum of Huber terms of log residuals; line: sum of squares.
    units: what the bootstrap drew: runs, or groups of runs. free: number of fitted parameters.
    centre, theta, draws, residuals: the estimate in its own coordinates, which `predict` reads.
    """

    form: Form
    params: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    confidence: float
    objective: float
    points: int
    units: int
    resamples: int
    compute: tuple[float, float]
    runs: tuple[str, ...]
    warnings: tuple[str, ...]
    free: int
    centre: float = field(repr=False)
    theta: Array = field(repr=False, compare=False)
    draws: Array = field(repr=False, compare=False)
    residuals: Array = field(repr=False, compare=False)
    version: str = VERSION

    def predict(self, compute: ArrayLike, run_noise: bool = False) -> tuple[Array, Array, Array]:
        """Value, low and high at `compute` FLOPs (any shape); low and high are NaN without draws.

        The interval is of the law; with `run_noise` of one further run: every draw takes every
        residual, widened by sqrt(n / (n - parameters)) because the fit has seen them.
        """
        shape = np.shape(compute)
        x = np.log(np.asarray(compute, np.float64)).ravel() - self.centre
        curve = CURVES[self.form]
        value = curve(self.theta, x)
        if not len(self.draws):
            nan = np.full(shape, np.nan)
            return value.reshape(shape), nan, nan.copy()
        spread = np.zeros(1)
        if run_noise:
            spread = self.residuals * np.sqrt(self.points / max(1, self.points - self.free))
        draws = curve(self.draws, x)[:, None]
        noisy = draws * np.exp(spread[:, None]) if self.form == "power" else draws + spread[:, None]
        tails = _tails(self.confidence)
        low, high = np.quantile(noisy.reshape(-1, x.size), tails, axis=0)
        return value.reshape(shape), low.reshape(shape), high.reshape(shape)

    def to_json(self) -> dict[str, Any]:
        """Everything but the arrays, as plain JSON values (NaN becomes null)."""
        hidden = {"theta", "draws", "residuals", "centre"}
        raw = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in hidden}
        finite: Callable[[float], float | None] = lambda v: v if np.isfinite(v) else None  # noqa: E731
        raw["params"] = {k: finite(v) for k, v in self.params.items()}
        raw["intervals"] = {k: [finite(v) for v in pair] for k, pair in self.intervals.items()}
        return raw | {n: list(raw[n]) for n in ("compute", "runs", "warnings")}


def fit_power(
    compute: ArrayLike,
    metric: ArrayLike,
    *,
    floor: float | None = None,
    runs: Sequence[str] = (),
    groups: Sequence[Any] | None = None,
    resamples: int = 1000,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Law:
    """L(C) = E + A C^-alpha by summed Huber (delta 1e-3) of log residuals, from many starts.

    compute: FLOPs of each run. metric: a positive loss that falls (NE, cross entropy).
    floor: E where it is known (0, or an oracle's loss); None fits it.
    runs: names, for messages and the record. groups: a label per run; the bootstrap then draws
        whole groups (the seeds of one rung), as long as there are more groups than parameters.
    Raises BadInput where no such law can be told from the points, saying why.
    """
    names = _names(runs, compute)
    c, y = _checked(compute, metric, names, needed=3 if floor is None else 2)
    if np.any(y <= 0):
        raise BadInput(f"run {names[int(np.argmin(y))]}: metric {y.min():g} <= 0 has no logarithm")
    if floor is not None and not 0 <= floor < y.min():
        raise BadInput(f"floor={floor:g} is outside [0, {y.min():g}), below the best run's metric")
    if np.polyfit(np.log(c), y, 1)[0] >= 0:
        raise BadInput("the metric does not fall with compute, so no power law; fit a line instead")
    free = 3 if floor is None else 2
    x, y, centre = np.log(c) - np.log(c).mean(), np.log(y), float(np.log(c).mean())
    low, high = box(y, floor)
    grid = starts(x, y, low, high)
    ones = np.ones((len(grid), len(x)))
    ends, values = descend_power(grid, x, y, ones, low, high, steps=40)
    first = np.argsort(values)[:8]  # the rest have settled elsewhere, or crawl on a plateau
    finished, values = descend_power(ends[first], x, y, ones[:8], low, high)
    theta = finished[np.argmin(values)]
    residuals = y - np.log(power_curve(theta, x))

    counts, units, notes = resample(c, groups, free, resamples, seed)
    draws = refit(np.concatenate([grid, ends]), theta, x, y, counts, low, high)

    def named(t: Array) -> dict[str, Array]:
        alpha, log_e = (
            np.exp(t[..., 1]),
            np.where(t[..., 2] <= y.min() - LOG_ZERO, -np.inf, t[..., 2]),
        )
        e = np.exp(log_e) if floor is None else np.full(alpha.shape, floor)
        last = power_curve(t, np.array([x.max() - np.log(10.0), x.max()]))
        big = np.exp(np.minimum(t[..., 0] + alpha * centre, 700.0))
        return {"E": e, "A": big, "alpha": alpha, "gain_per_decade": last[..., 0] - last[..., 1]}

    law = _law("power", named, theta, draws, float(values.min()), c, names, units, confidence, free)
    law = replace(law, centre=centre, residuals=residuals)
    return replace(law, warnings=(*notes, *_power_notes(law, floor)))


def fit_line(
    compute: ArrayLike,
    metric: ArrayLike,
    *,
    higher_is_better: bool = True,
    runs: Sequence[str] = (),
    groups: Sequence[Any] | None = None,
    resamples: int = 1000,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Law:
    """metric = level + slope log10(C / mean C) by least squares; arguments as in `fit_power`.

    gain_per_decade is the slope, with its sign turned when lower is better.
    """
    names = _names(runs, compute)
    c, y = _checked(compute, metric, names, needed=2)
    x, centre = np.log(c) - np.log(c).mean(), float(np.log(c).mean())
    z = x / np.log(10.0)

    def solve(w: Array) -> Array:
        w = w / w.sum(-1, keepdims=True)
        mean_z, mean_y = w @ z, w @ y
        slope = (w @ (z * y) - mean_z * mean_y) / (w @ z**2 - mean_z**2)
        return np.stack([mean_y - slope * mean_z, slope], -1)

    theta = solve(np.ones(len(y)))
    residuals = y - line_curve(theta, x)
    counts, units, notes = resample(c, groups, 2, resamples, seed)
    # Percentiles of a least-squares line cover too seldom where runs are few (80 %, not 90 %, at
    # eight): widened to Student's, the expanded percentile of Hesterberg 2015.
    left, tail = max(1, units - 2), 0.5 * (1.0 + confidence)
    wider = np.sqrt(units / left) * stats.t.ppf(tail, left) / stats.norm.ppf(tail)
    draws = theta + wider * (solve(counts) - theta)
    sign = 1.0 if higher_is_better else -1.0

    def named(t: Array) -> dict[str, Array]:
        return {"level": t[..., 0], "slope": t[..., 1], "gain_per_decade": sign * t[..., 1]}

    total = float((residuals**2).sum())
    law = _law("line", named, theta, draws, total, c, names, units, confidence, 2)
    return replace(law, centre=centre, residuals=residuals, warnings=tuple(notes))


@dataclass(frozen=True)
class LeftOut:
    """One run the law never saw: what it predicted there, and what happened."""

    run: str
    compute: float
    observed: float
    predicted: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """predicted - observed, in metric units."""
        return self.predicted - self.observed

    @property
    def covered(self) -> bool:
        """Whether the interval for a further run holds the observed value."""
        return self.low <= self.observed <= self.high


def leave_out_largest(
    fit: Callable[..., Law],
    compute: ArrayLike,
    metric: ArrayLike,
    k: int = 1,
    *,
    runs: Sequence[str] = (),
    groups: Sequence[Any] | None = None,
    **options: Any,
) -> list[LeftOut]:
    """Fits without the k largest budgets (runs within 2 % of compute are one) and predicts them.

    fit: `fit_power` or `fit_line`, called with `options`. Raises BadInput as it does.
    """
    names, c, y = _names(runs, compute), np.asarray(compute, float), np.asarray(metric, float)
    of = budgets(c)
    keep = of <= of.max() - k
    labels = None if groups is None else [g for g, kept in zip(groups, keep) if kept]
    kept_names = [n for n, kept in zip(names, keep) if kept]
    law = fit(c[keep], y[keep], runs=kept_names, groups=labels, **options)
    value, low, high = law.predict(c[~keep], run_noise=True)
    left = [n for n, kept in zip(names, keep) if not kept]
    rows = zip(left, c[~keep], y[~keep], value, low, high)
    return [LeftOut(n, *(float(v) for v in row)) for n, *row in rows]


def _tails(confidence: float) -> Array:
    return np.array([0.5 * (1.0 - confidence), 0.5 * (1.0 + confidence)])


def _law(
    form: Form,
    named: Callable[[Array], dict[str, Array]],
    theta: Array,
    draws: Array,
    objective: float,
    c: Array,
    names: tuple[str, ...],
    units: int,
    confidence: float,
    free: int,
) -> Law:
    tails = _tails(confidence)
    spans = {k: np.quantile(v, tails) for k, v in named(draws).items()} if len(draws) else {}
    return Law(
        form=form,
        params={k: float(v) for k, v in named(theta).items()},
        intervals={k: (float(v[0]), float(v[1])) for k, v in spans.items()},
        confidence=confidence,
        objective=objective,
        points=len(c),
        units=units,
        resamples=len(draws),
        compute=(float(c.min()), float(c.max())),
        runs=names,
        warnings=(),
        free=free,
        centre=0.0,
        theta=theta,
        draws=draws,
        residuals=np.zeros(0),
    )


def _power_notes(law: Law, floor: float | None) -> list[str]:
    """What the points cannot tell, in words."""
    notes = []
    low, high = law.intervals.get("alpha", (law.params["alpha"],) * 2)
    if low <= 1.01 * ALPHA[0] or high >= 0.99 * ALPHA[1]:
        notes.append(
            f"alpha is not identified: its interval [{low:.3g}, {high:.3g}] reaches the bounds "
            f"of the search {list(ALPHA)}; fix the floor or add budgets"
        )
    if (
        floor is None
        and law.intervals.get("E", (law.params["E"],))[0] < 0.01 * law.predict(law.compute[1])[0]
    ):
        notes.append("E is not identified: these runs do not exclude a floor of zero")
    return notes


def _names(runs: Sequence[str], compute: ArrayLike) -> tuple[str, ...]:
    return tuple(runs) or tuple(f"#{i}" for i in range(np.size(compute)))


def _checked(
    compute: ArrayLike, metric: ArrayLike, names: tuple[str, ...], needed: int
) -> tuple[Array, Array]:
    c, y = np.asarray(compute, np.float64), np.asarray(metric, np.float64)
    if c.ndim != 1 or c.shape != y.shape or len(names) != len(c):
        raise BadInput(f"compute {c.shape}, metric {y.shape}, {len(names)} runs: one each per run")
    for name, ci, yi in zip(names, c, y):
        if not np.isfinite(ci) or ci <= 0:
            raise BadInput(f"run {name}: compute {ci:g} is not a positive number of FLOPs")
        if not np.isfinite(yi):
            raise BadInput(f"run {name}: metric is {yi:g}; leave diverged runs out")
    if len(c) < needed:
        raise BadInput(f"{len(c)} runs cannot determine {needed} parameters; add runs")
    found = int(budgets(c).max()) + 1
    if found == 1:
        raise BadInput(f"all {len(c)} runs have one compute budget ({c[0]:g}): no law in compute")
    if found < needed:
        raise BadInput(f"{found} budgets cannot determine {needed} parameters; add budgets")
    if np.ptp(y) <= 1e-12 * np.abs(y).max():
        raise BadInput(f"the metric is {y[0]:g} in every run: nothing to fit")
    return c, y
