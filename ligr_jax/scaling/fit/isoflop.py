"""The best size at each compute budget, and its power law (Hoffmann et al. 2022, section 3.2).

At one budget the metric is a parabola in log10 size, fitted by least squares; its minimum is that
budget's best size. A straight line in logs through the minima gives size_opt = coefficient
C^exponent. A minimum outside the sizes tried is no minimum: it is flagged and left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit.bootstrap import CONFIDENCE, Array, budgets
from ligr_jax.scaling.fit.law import (
    VERSION,
    checked,
    estimates,
    interval,
    names_of,
    plain,
    refuse_constant,
    refuse_few,
)


@dataclass(frozen=True)
class Budget:
    """One compute budget: the best size there, with interval, and the metric at it.

    curve: (c0, c1, c2), metric = c0 + c1 z + c2 z^2 with z = log10 size.
    low, high: of the parabola's minimum, which is not quite the true curve's: they covered it in
        83 % of 200 simulated sweeps (5 sizes, 4 budgets), the exponent's 90 % interval in 93 %.
    at_edge: no minimum lies within the sizes tried; `optimum` is then the end that does best.
    """

    compute: float
    optimum: float
    low: float
    high: float
    metric: float
    curve: tuple[float, float, float]
    at_edge: bool
    runs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class IsoFlop:
    """The power law through the minima: params and intervals of exponent and coefficient.

    freedom: degrees of freedom of the residuals of all parabolas.
    """

    params: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    confidence: float
    objective: float
    points: int
    resamples: int
    budgets: tuple[Budget, ...]
    runs: tuple[str, ...]
    warnings: tuple[str, ...]
    version: str = VERSION
    form: str = "isoflop"
    freedom: int = field(repr=False)
    draws: Array = field(repr=False, compare=False)  # (R, 2): log10 coefficient, exponent

    def predict(self, compute: ArrayLike) -> tuple[Array, Array, Array]:
        """The best size at `compute` FLOPs (any shape), low and high; NaN without draws."""
        shape, x = np.shape(compute), np.log10(np.asarray(compute, np.float64)).ravel()
        value = self.params["coefficient"] * 10 ** (self.params["exponent"] * x)
        size = 10 ** (self.draws[:, :1] + self.draws[:, 1:] * x)
        low, high = interval(size, self.confidence, self.freedom)
        return value.reshape(shape), low.reshape(shape), high.reshape(shape)

    def to_json(self) -> dict[str, Any]:
        """Everything but the draws, as plain JSON values."""
        hidden = {"freedom", "draws"}
        found = {k: v for k, v in vars(self).items() if k not in hidden}
        return plain(found | {"budgets": [vars(b) for b in self.budgets]})


@dataclass(frozen=True)
class _Cells:
    """The runs of one budget by cell (size, or group of seeds), and their parabola."""

    z: Array  # log10 size
    weight: Array  # runs in the cell
    metric: Array

    def solve(self, metric: Array) -> tuple[Array, Array]:
        """Coefficients (..., 3) about the mean of z, and leverage, for metrics (..., cells)."""
        root, t = np.sqrt(self.weight), self.z - self.z.mean()
        design = np.stack([np.ones_like(t), t, t * t], 1) * root[:, None]
        q, r = np.linalg.qr(design)
        return np.linalg.solve(r, ((metric * root) @ q)[..., None])[..., 0], (q * q).sum(1)

    def value(self, c: Array) -> Array:
        t = self.z - self.z.mean()
        return c[..., :1] + c[..., 1:2] * t + c[..., 2:] * t * t

    def vertex(self, c: Array) -> Array:
        """log10 of the best size; NaN where it is not within the sizes tried."""
        bent = c[..., 2] > 0
        at = -0.5 * c[..., 1] / np.where(bent, c[..., 2], 1.0)
        t = self.z - self.z.mean()
        inside = bent & (at > t.min()) & (at < t.max())
        return np.where(inside, at + self.z.mean(), np.nan)


def fit_isoflop(
    budget: ArrayLike,
    size: ArrayLike,
    metric: ArrayLike,
    *,
    runs: Sequence[str] = (),
    groups: Sequence[Any] | None = None,
    resamples: int = 1000,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> IsoFlop:
    """The best size against compute, from runs of several sizes at each of several budgets.

    budget: FLOPs of each run; within 2 % they are one budget. size: parameters, or whatever is
        traded against data. metric: lower is better.
    groups: a label per run; runs of a budget that share one (seeds) are one cell, drawn whole.
    Intervals: a parabola through few sizes cannot be resampled by runs, so the sizes stay and the
        residuals of all budgets, over sqrt(1 - leverage), are drawn anew with random signs; the
        percentiles are expanded to Student's width (see `bootstrap.tails`). So noise is taken to
        be alike at all budgets, and what a parabola misses of the true curve counts as noise.
    Raises BadInput for a budget of fewer than three sizes, and for fewer than two inner minima.
    """
    names = names_of(runs, budget)
    y, c, s = checked(names, metric, budget=budget, size=size)
    refuse_few(len(y), 3)
    refuse_constant(y)
    of = budgets(c)
    labels = np.arange(len(y)) if groups is None else np.array([str(g) for g in groups])
    compute = np.array([np.exp(np.log(c[of == k]).mean()) for k in range(of.max() + 1)])
    cells = [
        _cells(compute[k], s[of == k], y[of == k], labels[of == k]) for k in range(len(compute))
    ]
    solved = [cell.solve(cell.metric) for cell in cells]
    optima = np.array([cell.vertex(c) for cell, (c, _) in zip(cells, solved)])
    inner = np.isfinite(optima)
    if inner.sum() < 2:
        raise BadInput(
            f"{inner.sum()} of {len(cells)} budgets have their minimum within the sizes tried; a "
            "power law needs 2: add larger or smaller sizes"
        )
    x = np.log10(compute)
    freedom = sum(len(cell.z) for cell in cells) - 3 * len(cells)
    drawn = _redrawn(cells, solved, resamples, seed)
    notes = []
    if freedom == 0 and resamples:
        drawn = drawn[:0]
        notes.append("three sizes a budget: every parabola passes through, no intervals")
    edge = [f"{v:.3g}" for v in compute[~inner]]
    if edge:
        notes.append(
            f"the minimum is at the edge of the sizes tried at {', '.join(edge)} FLOPs; left out: "
            "add sizes there"
        )
    usable = drawn[:, inner]
    usable = usable[np.isfinite(usable).sum(1) >= 2]
    if len(usable) < 0.95 * len(drawn):
        notes.append(f"only {len(usable)} of {len(drawn)} resamples have two minima to join")
    theta, draws = _line(x[inner], optima[None, inner])[0], _line(x[inner], usable)

    def named(t: Array) -> dict[str, Array]:
        return {"exponent": t[..., 1], "coefficient": 10 ** t[..., 0]}

    params, spans = estimates(named, theta, draws, confidence, freedom)
    residuals = [np.sqrt(q.weight) * (q.metric - q.value(c)) for q, (c, _) in zip(cells, solved)]
    return IsoFlop(
        params=params,
        intervals=spans,
        confidence=confidence,
        objective=float(sum((r**2).sum() for r in residuals)),
        points=len(y),
        resamples=len(draws),
        budgets=tuple(
            _budget(
                compute[k], cells[k], solved[k][0], drawn[:, k], confidence, freedom,
                tuple(n for n, b in zip(names, of) if b == k),
            )
            for k in range(len(cells))
        ),
        runs=names,
        warnings=tuple(notes),
        freedom=freedom,
        draws=draws,
    )  # fmt: skip


def _cells(compute: float, size: Array, metric: Array, labels: Array) -> _Cells:
    index, weight = np.unique(labels, return_inverse=True, return_counts=True)[1:]
    if len(set(size)) < 3 or len(weight) < 3:
        raise BadInput(
            f"budget {compute:.4g}: {min(len(set(size)), len(weight))} distinct sizes; "
            "a parabola needs 3"
        )
    z = np.bincount(index, np.log10(size)) / weight
    return _Cells(z, weight.astype(float), np.bincount(index, metric) / weight)


def _redrawn(
    cells: Sequence[_Cells], solved: Sequence[tuple[Array, Array]], resamples: int, seed: int
) -> Array:
    """log10 of the best size of every resample and budget (R, budgets); NaN where not inside."""
    pairs = list(zip(cells, solved))
    off = [
        np.sqrt(q.weight / np.maximum(1.0 - leverage, 1e-9)) * (q.metric - q.value(c))
        for q, (c, leverage) in pairs
    ]
    rng, pool = np.random.default_rng(seed), np.concatenate(off)
    found = []
    for q, (c, _) in pairs:
        noise = rng.choice(pool, (resamples, len(q.z))) * rng.choice([-1, 1], (resamples, len(q.z)))
        found.append(q.vertex(q.solve(q.value(c) + noise / np.sqrt(q.weight))[0]))
    return np.stack(found, 1)


def _line(x: Array, y: Array) -> Array:
    """Intercept and slope (R, 2) by least squares of every row of y (R, k) without its NaNs."""
    there = np.isfinite(y)
    count = np.maximum(there.sum(1, keepdims=True), 1)
    y = np.where(there, y, 0.0)
    mean_x, mean_y = (there * x).sum(1, keepdims=True) / count, y.sum(1, keepdims=True) / count
    t = there * (x - mean_x)
    slope = (t * (y - mean_y)).sum(1) / (t * t).sum(1)
    return np.stack([mean_y[:, 0] - slope * mean_x[:, 0], slope], 1)


def _budget(
    compute: float,
    cells: _Cells,
    c: Array,
    drawn: Array,
    confidence: float,
    freedom: int,
    runs: tuple[str, ...],
) -> Budget:
    at, middle = float(cells.vertex(c)), cells.z.mean()
    edge = not np.isfinite(at)
    best = cells.z[np.argmin(cells.value(c))] if edge else at
    low, high = interval(drawn[np.isfinite(drawn)][: 0 if edge else None], confidence, freedom)
    t = best - middle
    curve = (c[0] - c[1] * middle + c[2] * middle**2, c[1] - 2 * c[2] * middle, c[2])
    return Budget(
        compute=float(compute),
        optimum=float(10**best),
        low=float(10**low),
        high=float(10**high),
        metric=float(c[0] + c[1] * t + c[2] * t * t),
        curve=(float(curve[0]), float(curve[1]), float(curve[2])),
        at_edge=edge,
        runs=runs,
    )
