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
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ligr_jax.data.schema import BadInput

VERSION = "1"  # of the estimator: changes whenever the same runs would give other numbers
DELTA = 1e-3
ALPHA = (1e-3, 3.0)  # bounds of the search; an interval that reaches one is reported
LOG_ZERO = 14.0  # E below exp(-14) of the best metric is zero
CONFIDENCE = 0.90
SAME_BUDGET = 0.02  # runs within 2 % of compute are one budget

Array = NDArray[np.float64]
Form = Literal["power", "line"]


def power_curve(theta: Array, x: Array) -> Array:
    """E + A C^-alpha at theta (..., 3) = (a, log alpha, e) and centred log compute x (n)."""
    a, v, e = (theta[..., i, None] for i in range(3))
    return np.exp(np.logaddexp(a - np.exp(v) * x, e))


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
    low, high = _bounds(y, floor)
    starts = _starts(x, y, low, high)
    ones = np.ones((len(starts), len(x)))
    ends, values = descend_power(starts, x, y, ones, low, high, steps=40)
    first = np.argsort(values)[:8]  # the rest have settled elsewhere, or crawl on a plateau
    finished, values = descend_power(ends[first], x, y, ones[:8], low, high)
    theta = finished[np.argmin(values)]
    residuals = y - np.log(power_curve(theta, x))

    counts, units, notes = resample(c, groups, free, resamples, seed)
    draws = _refit(np.concatenate([starts, ends]), theta, x, y, counts, low, high)

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


def budgets(compute: ArrayLike) -> NDArray[np.int64]:
    """Index of each run's budget, smallest first; runs within 2 % of compute share one."""
    c = np.asarray(compute, np.float64)
    order = np.argsort(c, kind="stable")
    index = np.empty(len(c), np.int64)
    index[order] = np.concatenate([[0], np.cumsum(np.diff(np.log(c[order])) > SAME_BUDGET)])
    return index


def resample(
    compute: Array, groups: Sequence[Any] | None, free: int, resamples: int, seed: int
) -> tuple[Array, int, list[str]]:
    """Bootstrap as weights: counts (resamples, runs), number of units drawn, notes.

    A resample with fewer distinct budgets than free parameters determines nothing and is redrawn.
    """
    n, notes = len(compute), []
    labels = np.arange(n) if groups is None else np.array([str(g) for g in groups])
    unit = np.unique(labels, return_inverse=True)[1]
    if unit.max() + 1 <= free < n:
        unit = np.arange(n)
        notes.append("too few groups to resample whole ones: single runs were resampled instead")
    units = int(unit.max()) + 1
    if resamples and units <= free:
        notes.append(f"{units} points and {free} parameters: the law passes through, no intervals")
        return np.zeros((0, n)), units, notes
    if units < free + 3:
        notes.append(f"only {units} runs or groups: the intervals are indicative at best")
    rng, of = np.random.default_rng(seed), budgets(compute)
    has = np.zeros((units, of.max() + 1))
    has[unit, of] = 1
    kept, total = [np.zeros((0, units))], 0
    while total < resamples:
        drawn = rng.multinomial(units, np.full(units, 1 / units), size=resamples).astype(float)
        drawn = drawn[((drawn @ has) > 0).sum(1) >= free]
        kept, total = [*kept, drawn], total + len(drawn)
    return np.concatenate(kept)[:resamples][:, unit], units, notes


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


def _bounds(y: Array, floor: float | None) -> tuple[Array, Array]:
    zero = y.min() - LOG_ZERO
    low = np.array([zero, np.log(ALPHA[0]), zero])
    high = np.array([y.max() + 1.0, np.log(ALPHA[1]), y.max()])
    if floor is not None:
        low[2] = high[2] = np.log(floor) if floor else y.min() - 3 * LOG_ZERO
    return low, high


def _starts(x: Array, y: Array, low: Array, high: Array) -> Array:
    alpha, share = np.meshgrid(np.geomspace(0.01, 2.0, 8), [1e-6, 0.3, 0.6, 0.8, 0.9, 0.97, 0.995])
    e = np.clip(y.min() + np.log(share.ravel()), low[2], high[2])
    a = np.log(np.exp(y.mean()) - np.minimum(np.exp(e), 0.999 * np.exp(y.mean())))
    return np.stack([a, np.log(alpha.ravel()), e], -1)


def _refit(
    library: Array, theta: Array, x: Array, y: Array, counts: Array, low: Array, high: Array
) -> Array:
    """Refits every resample from the full fit and from its own best point in each band of alpha."""
    if not len(counts):
        return np.zeros((0, 3))
    values = counts @ huber(_residuals(library, x, y)[0]).T
    bands = np.digitize(library[:, 1], np.log([0.05, 0.3, 1.0]))
    starts = [np.broadcast_to(theta, (len(counts), 3))]
    for band in np.unique(bands):
        inside = np.flatnonzero(bands == band)
        starts.append(library[inside[np.argmin(values[:, inside], axis=1)]])
    many, weights = len(starts), np.tile(counts, (len(starts), 1))
    ends, ended = descend_power(np.concatenate(starts), x, y, weights, low, high, steps=100)
    best = np.argmin(ended.reshape(many, -1), axis=0)
    return ends.reshape(many, -1, 3)[best, np.arange(len(counts))]


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
