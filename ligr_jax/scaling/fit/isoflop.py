"""Best size at each compute budget, and its power law (Hoffmann et al. 2022, section 3.2).

At each budget the metric is modelled as a parabola in log10 size, fitted by least squares; its
minimum is the best size of that budget. A straight line in logs through the minima gives
size_opt = coefficient C^exponent. A budget whose minimum is outside the sizes tried is flagged and
excluded from the power law.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit.bootstrap import CONFIDENCE, Array, budgets, refuse_negative
from ligr_jax.scaling.fit.law import (
    VERSION,
    checked,
    estimates,
    interval,
    names_of,
    refuse_constant,
    refuse_few,
)
from ligr_jax.strict_json import nan_to_null


@dataclass(frozen=True)
class Budget:
    """One compute budget and its best size.

    Attributes:
        compute: FLOPs.
        optimum: best size; if `at_edge`, the better end of the sizes tried.
        low: lower end of the interval of the parabola's minimum. The minimum of the true curve
            differs slightly: 90 % intervals covered it in 83 % of 200 simulated sweeps (5 sizes,
            4 budgets); the exponent's 90 % interval covered in 93 %.
        high: upper end of that interval.
        metric: metric of the parabola at `optimum`.
        curve: (c0, c1, c2), metric = c0 + c1 z + c2 z^2 with z = log10 size.
        at_edge: the parabola has no minimum within the sizes tried.
        runs: names of the runs of this budget.
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
    """Power law through the minima of the budgets.

    Attributes:
        params: `exponent` and `coefficient`.
        intervals: interval of each at `confidence`; empty without resamples.
        confidence: nominal coverage of the intervals.
        objective: sum of squared residuals of all parabolas.
        points: number of runs.
        resamples: number of bootstrap resamples used.
        budgets: the budgets, smallest first.
        runs: names of the runs.
        warnings: what the data do not determine.
        version: version of the estimators.
        form: "isoflop".
        freedom: residual degrees of freedom of all parabolas.
        draws: (R, 2), log10 coefficient and exponent of each resample.
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
    draws: Array = field(repr=False, compare=False)

    def predict(self, compute: ArrayLike) -> tuple[Array, Array, Array]:
        """Return the best size at `compute` FLOPs, low and high, each of the shape of `compute`.

        The interval is for the law's best size. It is NaN without resamples.
        """
        shape = np.shape(compute)
        x = np.log10(np.asarray(compute, np.float64)).ravel()
        value = self.params["coefficient"] * 10 ** (self.params["exponent"] * x)
        size = 10 ** (self.draws[:, :1] + self.draws[:, 1:] * x)
        low, high = interval(size, self.confidence, self.freedom)
        return value.reshape(shape), low.reshape(shape), high.reshape(shape)

    def to_json(self) -> dict[str, Any]:
        """Return all fields except the draws as plain JSON values."""
        hidden = {"freedom", "draws"}
        shown = {k: v for k, v in vars(self).items() if k not in hidden}
        result: dict[str, Any] = nan_to_null(shown | {"budgets": [vars(b) for b in self.budgets]})
        return result


@dataclass(frozen=True)
class _Cells:
    """Runs of one budget, averaged per cell (a single run, or a group of seeds)."""

    z: Array  # mean log10 size of each cell
    weight: Array  # number of runs of each cell
    metric: Array  # mean metric of each cell

    def solve(self, metric: Array) -> tuple[Array, Array]:
        """Fit parabolas to metrics (..., cells).

        Returns:
            Coefficients (..., 3) of 1, t, t^2 with t = z - mean z, and the leverage of each cell.
        """
        root = np.sqrt(self.weight)
        t = self.z - self.z.mean()
        design = np.stack([np.ones_like(t), t, t * t], 1) * root[:, None]
        q, r = np.linalg.qr(design)
        return np.linalg.solve(r, ((metric * root) @ q)[..., None])[..., 0], (q * q).sum(1)

    def value(self, c: Array) -> Array:
        """Return the parabolas with coefficients c (..., 3) at the cells, (..., cells)."""
        t = self.z - self.z.mean()
        result: Array = c[..., :1] + c[..., 1:2] * t + c[..., 2:] * t * t
        return result

    def vertex(self, c: Array) -> Array:
        """Return log10 of the best size; NaN if it is not within the sizes tried."""
        convex = c[..., 2] > 0
        minimum = -0.5 * c[..., 1] / np.where(convex, c[..., 2], 1.0)
        t = self.z - self.z.mean()
        inside = convex & (minimum > t.min()) & (minimum < t.max())
        return np.where(inside, minimum + self.z.mean(), np.nan)


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
    """Fit the power law of the best size against compute.

    The intervals of exponent, coefficient and `predict` come from a residual bootstrap: with few
    sizes per budget, runs cannot be resampled, so the sizes stay fixed and the residuals of all
    budgets, divided by sqrt(1 - leverage), are redrawn with random signs. Percentiles are expanded
    to the width of Student's t (see `bootstrap.tails`). This assumes that the noise is equal at all
    budgets, and it counts the misfit of the parabolas as noise.

    Args:
        budget: FLOPs of each run, (n,); runs that differ by at most 2 % share a budget.
        size: number of parameters, or another size traded against data, (n,).
        metric: metric of each run, lower is better, (n,).
        runs: names of the runs.
        groups: a label per run; runs of a budget with equal labels (seeds) are averaged and
            resampled together.
        resamples: number of bootstrap resamples; 0 gives no intervals.
        confidence: nominal coverage of the intervals.
        seed: seed of the bootstrap.

    Returns:
        The law and the best size of each budget.

    Raises:
        BadInput: a budget has fewer than three sizes, fewer than two budgets have a minimum within
            their sizes, or a value is not finite or a scale not positive.
    """
    names = names_of(runs, budget)
    y, c, s = checked(names, metric, budget=budget, size=size)
    refuse_negative(resamples)
    refuse_few(len(y), 3)
    refuse_constant(y)

    # One parabola per budget. Seeds of one size are averaged first, so that they do not count as
    # degrees of freedom of the curve.
    index = budgets(c)
    labels = np.arange(len(y)) if groups is None else np.array([str(g) for g in groups])
    compute = np.array([np.exp(np.log(c[index == k]).mean()) for k in range(index.max() + 1)])
    cells = [
        _cells(compute[k], s[index == k], y[index == k], labels[index == k])
        for k in range(len(compute))
    ]
    solved = [cell.solve(cell.metric) for cell in cells]
    optima = np.array([cell.vertex(c) for cell, (c, _) in zip(cells, solved)])
    inner = np.isfinite(optima)
    if inner.sum() < 2:
        raise BadInput(
            f"{inner.sum()} of {len(cells)} budgets have their minimum within the sizes tried; a "
            "power law needs 2: add larger or smaller sizes"
        )

    # Residual bootstrap of the minima. With three sizes per budget every parabola interpolates its
    # points and the residuals, which are zero, carry no information on the noise.
    freedom = sum(len(cell.z) for cell in cells) - 3 * len(cells)
    optima_draws = _resample_optima(cells, solved, resamples, seed)
    notes = []
    if freedom == 0 and resamples:
        optima_draws = optima_draws[:0]
        notes.append("three sizes per budget: the parabolas interpolate the points, no intervals")
    edge = [f"{v:.3g}" for v in compute[~inner]]
    if edge:
        notes.append(
            f"the minimum is at the edge of the sizes tried at {', '.join(edge)} FLOPs; these "
            "budgets are left out: add sizes there"
        )

    # The power law, through the minima of the data and of each resample. A resample may push the
    # minimum of a budget out of the sizes tried: the line then uses the remaining budgets.
    usable = optima_draws[:, inner]
    usable = usable[np.isfinite(usable).sum(1) >= 2]
    if len(usable) < 0.95 * len(optima_draws):
        notes.append(f"only {len(usable)} of {len(optima_draws)} resamples have two minima or more")
    x = np.log10(compute)
    theta = _line(x[inner], optima[None, inner])[0]
    draws = _line(x[inner], usable)

    def named(t: Array) -> dict[str, Array]:
        return {"exponent": t[..., 1], "coefficient": 10 ** t[..., 0]}

    params, spans, without = estimates(named, theta, draws, confidence, freedom)
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
                compute=compute[k],
                cells=cells[k],
                c=solved[k][0],
                draws=optima_draws[:, k],
                confidence=confidence,
                freedom=freedom,
                runs=tuple(n for n, b in zip(names, index) if b == k),
            )
            for k in range(len(cells))
        ),
        runs=names,
        warnings=(*notes, *without),
        freedom=freedom,
        draws=draws,
    )


def _cells(compute: float, size: Array, metric: Array, labels: Array) -> _Cells:
    """Average the runs of one budget per label; raise BadInput for fewer than three sizes."""
    index, weight = np.unique(labels, return_inverse=True, return_counts=True)[1:]
    if len(set(size)) < 3 or len(weight) < 3:
        raise BadInput(
            f"budget {compute:.4g}: {min(len(set(size)), len(weight))} distinct sizes; "
            "a parabola needs 3"
        )
    z = np.bincount(index, np.log10(size)) / weight
    return _Cells(z=z, weight=weight.astype(float), metric=np.bincount(index, metric) / weight)


def _resample_optima(
    cells: Sequence[_Cells], solved: Sequence[tuple[Array, Array]], resamples: int, seed: int
) -> Array:
    """Return log10 of the best size per resample and budget (R, budgets); NaN if at the edge."""
    pairs = list(zip(cells, solved))
    scaled_residuals = [
        np.sqrt(q.weight / np.maximum(1.0 - leverage, 1e-9)) * (q.metric - q.value(c))
        for q, (c, leverage) in pairs
    ]
    pool = np.concatenate(scaled_residuals)
    rng = np.random.default_rng(seed)
    optima = []
    for q, (c, _) in pairs:
        noise = rng.choice(pool, (resamples, len(q.z))) * rng.choice([-1, 1], (resamples, len(q.z)))
        optima.append(q.vertex(q.solve(q.value(c) + noise / np.sqrt(q.weight))[0]))
    return np.stack(optima, 1)


def _line(x: Array, y: Array) -> Array:
    """Fit a line to every row of y (R, k), ignoring NaN; return intercept and slope (R, 2)."""
    valid = np.isfinite(y)
    count = np.maximum(valid.sum(1, keepdims=True), 1)
    y = np.where(valid, y, 0.0)
    mean_x = (valid * x).sum(1, keepdims=True) / count
    mean_y = y.sum(1, keepdims=True) / count
    t = valid * (x - mean_x)
    slope = (t * (y - mean_y)).sum(1) / (t * t).sum(1)
    return np.stack([mean_y[:, 0] - slope * mean_x[:, 0], slope], 1)


def _budget(
    compute: float,
    cells: _Cells,
    c: Array,
    draws: Array,
    confidence: float,
    freedom: int,
    runs: tuple[str, ...],
) -> Budget:
    """Return the best size of one budget with its interval, from the draws of the minimum (R,)."""
    vertex = float(cells.vertex(c))
    middle = cells.z.mean()
    edge = not np.isfinite(vertex)
    best = cells.z[np.argmin(cells.value(c))] if edge else vertex
    low, high = interval(draws[np.isfinite(draws)][: 0 if edge else None], confidence, freedom)
    # `c` is about the mean of z; the record has the polynomial in z.
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
