"""Best size at each compute budget, and its power law (Hoffmann et al. 2022, section 3.2).

At each budget the minimum of the metric in log10 size is found by a parabola or in one of the other
ways of `minima`. A straight line in logs through the minima gives size_opt = coefficient
C^exponent. A budget whose minimum is outside the sizes tried is flagged and excluded from the power
law.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit.bootstrap import (
    CONFIDENCE,
    Array,
    budget_tolerance,
    budgets,
    refuse_negative,
)
from ligr_jax.scaling.fit.checks import checked, names_of, refuse_constant, refuse_few
from ligr_jax.scaling.fit.intervals import band, estimates
from ligr_jax.scaling.fit.isoflop_law import Budget, IsoFlop
from ligr_jax.scaling.fit.minima import MINIMA, Cells, akima, cells_of, local_parabola

SIZES = {"parabola": 3, "window": 5, "akima": 5}  # fewest sizes of a budget


def fit_isoflop(
    budget: ArrayLike,
    size: ArrayLike,
    metric: ArrayLike,
    *,
    higher_is_better: bool = False,
    minimum: str = "parabola",
    width: float | None = None,
    tolerance: float | None = None,
    weights: ArrayLike | None = None,
    weighted: bool = False,
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
    to the width of Student's t (see `intervals.tails`). This assumes that the noise is equal at all
    budgets, and it counts the misfit of the parabolas as noise. On wide asymmetric grids (from 20
    times too small to 8 times too large, 7 or 11 sizes, compute that jitters by 3 %) nominal 90 %
    intervals covered exponent and prediction in 95 to 99 % (parabola) and 96 to 98 % (window) of
    200 studies and in 95 to 100 % (akima) of 60, heavy tails included.

    Args:
        budget: FLOPs of each run, (n,); runs that differ by at most `tolerance` share a budget.
        size: number of parameters, or another size traded against data, (n,).
        metric: metric of each run, (n,).
        higher_is_better: the best size of a budget is that of the highest metric.
        minimum: how a minimum is found: parabola, window or akima (see `minima`).
        width: half-width of the window in decades of size.
        tolerance: relative difference in compute within a budget; None: from the gaps between the
            runs' compute (see `budget_tolerance`).
        weights: weight of each run in its budget's curve, (n,); None: equal.
        weighted: weigh each minimum in the power law by its inverse variance over the resamples.
        runs: names of the runs.
        groups: a label per run; runs of a budget with equal labels (seeds) are averaged and
            resampled together.
        resamples: number of bootstrap resamples; 0 gives no intervals.
        confidence: nominal coverage of the intervals.
        seed: seed of the bootstrap.

    Returns:
        The law and the best size of each budget.

    Raises:
        BadInput: fewer than two budgets have three sizes and a minimum within their sizes, or a
            value is not finite or a scale not positive.
    """
    names = names_of(runs, budget)
    y, c, s = checked(names, metric, budget=budget, size=size)
    refuse_negative(resamples)
    refuse_few(len(y), 3)
    refuse_constant(y)

    (share,) = checked(names, y, weights=np.ones(len(y)) if weights is None else weights)[1:]
    if minimum not in MINIMA:
        raise BadInput(f"minimum={minimum!r}: give one of {', '.join(MINIMA)}")
    sign = -1.0 if higher_is_better else 1.0
    y = sign * y

    # One curve per budget. A budget with too few sizes is left out.
    index = budgets(c, budget_tolerance(c) if tolerance is None else tolerance)
    labels = np.arange(len(y)) if groups is None else np.array([str(g) for g in groups])
    notes = []
    centres, cells, members = [], [], []
    for k in range(index.max() + 1):
        inside = index == k
        middle = float(np.exp(np.log(c[inside]).mean()))
        cell = cells_of(s[inside], y[inside], labels[inside], share[inside])
        sizes = min(len(set(s[inside])), len(cell.z))
        if sizes < SIZES[minimum]:
            notes.append(
                f"budget {middle:.4g}: {sizes} distinct sizes; a {minimum} needs "
                f"{SIZES[minimum]}, so this budget is left out"
            )
            continue
        centres.append(middle)
        cells.append(cell)
        members.append(tuple(n for n, kept in zip(names, inside) if kept))
    if len(cells) < 2 and notes:
        raise BadInput(
            f"{len(cells)} budgets remain, and a power law needs 2: {'; '.join(notes[:3])}"
        )
    compute = np.array(centres)
    find = MINIMA[minimum]
    solved = [_solve(cell, minimum, width) for cell in cells]
    optima = np.array([float(find(cell, cell.metric, width)) for cell in cells])
    inner = np.isfinite(optima)
    if inner.sum() < 2:
        raise BadInput(
            f"{inner.sum()} of {len(cells)} budgets have their minimum within the sizes tried; a "
            "power law needs 2: add larger or smaller sizes"
        )

    # Residual bootstrap of the minima. With three sizes per budget every parabola interpolates its
    # points and the residuals, which are zero, carry no information on the noise.
    freedom = sum(len(cell.z) for cell in cells) - 3 * len(cells)
    optima_draws = _resample_optima(cells, solved, minimum, width, resamples, seed)
    interpolated = np.array([float(akima(cell, cell.metric, None)) for cell in cells])
    if freedom == 0 and resamples:
        optima_draws = optima_draws[:0]
        notes.append("three sizes per budget: the parabolas interpolate the points, no intervals")
    edge = [f"{v:.3g}" for v in compute[~inner]]
    if edge:
        notes.append(
            f"the minimum is at the edge of the sizes tried at {', '.join(edge)} FLOPs; these "
            "budgets are left out: add sizes there"
        )

    notes += _missed(compute, cells, optima, interpolated)

    # The power law, through the minima of the data and of each resample. A resample may push the
    # minimum of a budget out of the sizes tried: the line then uses the remaining budgets.
    usable = optima_draws[:, inner]
    usable = usable[np.isfinite(usable).sum(1) >= 2]
    if len(usable) < 0.95 * len(optima_draws):
        notes.append(f"only {len(usable)} of {len(optima_draws)} resamples have two minima or more")
    x = np.log10(compute)
    trust = np.ones(inner.sum())
    if weighted:
        if len(usable) < 2:
            raise BadInput(
                "weighted minima need resamples, which give the variance of each minimum"
            )
        trust = 1.0 / np.nanvar(usable, axis=0)
    theta = _line(x[inner], optima[None, inner], trust)[0]
    draws = _line(x[inner], usable, trust)

    def named(t: Array) -> dict[str, Array]:
        return {"exponent": t[..., 1], "coefficient": 10 ** t[..., 0]}

    params, spans, without = estimates(named, theta, draws, confidence, freedom)
    residuals = [_residuals(cell, *pair) for cell, pair in zip(cells, solved)]
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
                sign=sign,
                draws=optima_draws[:, k],
                confidence=confidence,
                freedom=freedom,
                vertex=optima[k],
                interpolated=interpolated[k],
                runs=members[k],
            )
            for k in range(len(cells))
        ),
        runs=names,
        warnings=(*notes, *without),
        freedom=freedom,
        draws=draws,
    )


def _solve(cell: Cells, minimum: str, width: float | None) -> tuple[Array, Array]:
    """Return the parabola of a budget and the leverage of its cells, 0 outside its window."""
    return (
        cell.solve(cell.metric)
        if minimum == "parabola"
        else local_parabola(cell, cell.metric, width)
    )


def _residuals(cell: Cells, c: Array, leverage: Array) -> Array:
    """Return the weighted residuals of the cells that the parabola describes."""
    inside = leverage > 0
    return (np.sqrt(cell.weight) * (cell.metric - cell.value(c)))[inside]


def _resample_optima(
    cells: Sequence[Cells],
    solved: Sequence[tuple[Array, Array]],
    minimum: str,
    width: float | None,
    resamples: int,
    seed: int,
) -> Array:
    """Return log10 of the best size per resample and budget (R, budgets); NaN if at the edge.

    Noise is added to the parabola. A local method does not know the curve outside its window, so
    there noise is added to the points.
    """
    pairs = list(zip(cells, solved))
    scaled_residuals = [
        _residuals(q, c, leverage) / np.sqrt(np.maximum(1.0 - leverage[leverage > 0], 1e-9))
        for q, (c, leverage) in pairs
    ]
    pool = np.concatenate(scaled_residuals)
    rng = np.random.default_rng(seed)
    optima = []
    for q, (c, _) in pairs:
        noise = rng.choice(pool, (resamples, len(q.z))) * rng.choice([-1, 1], (resamples, len(q.z)))
        base = q.value(c) if minimum == "parabola" else q.metric
        optima.append(MINIMA[minimum](q, base + noise / np.sqrt(q.weight), width))
    return np.stack(optima, 1)


def _missed(
    compute: Array, cells: Sequence[Cells], optima: Array, interpolated: Array
) -> list[str]:
    """Return a note if minima differ from those of the interpolation by more than one size."""
    spacing = np.array([np.diff(np.unique(cell.z)).mean() for cell in cells])
    missed = [f"{c:.3g}" for c in compute[np.abs(optima - interpolated) > spacing]]
    if not missed:
        return []
    return [
        f"the parabola misses the curve at {', '.join(missed)} FLOPs: its minimum and that of the "
        "interpolated points are more than one size apart; compare minimum=window and akima"
    ]


def _line(x: Array, y: Array, weight: Array) -> Array:
    """Return intercept and slope (R, 2) of a weighted line through each row of y (R, k)."""
    valid = np.isfinite(y) * weight
    count = np.maximum(valid.sum(1, keepdims=True), 1e-300)
    y = np.where(valid > 0, y, 0.0)
    mean_x = (valid * x).sum(1, keepdims=True) / count
    mean_y = (valid * y).sum(1, keepdims=True) / count
    t = x - mean_x
    slope = (valid * t * (y - mean_y)).sum(1) / (valid * t * t).sum(1)
    return np.stack([mean_y[:, 0] - slope * mean_x[:, 0], slope], 1)


def _budget(
    compute: float,
    cells: Cells,
    c: Array,
    sign: float,
    draws: Array,
    confidence: float,
    freedom: int,
    vertex: float,
    interpolated: float,
    runs: tuple[str, ...],
) -> Budget:
    """Return the best size of one budget with its interval, from the draws of the minimum (R,).

    `sign` is that of the metric in the curve: -1 if the metric was turned around.
    """
    middle = cells.z.mean()
    edge = not np.isfinite(vertex)
    best = cells.z[np.argmin(cells.value(c))] if edge else vertex
    usable = draws[np.isfinite(draws)][: 0 if edge else None]
    low, high = band(np.asarray(best), usable, confidence, freedom)
    # `c` is about the mean of z; the record has the polynomial in z.
    t = best - middle
    curve = (c[0] - c[1] * middle + c[2] * middle**2, c[1] - 2 * c[2] * middle, c[2])
    return Budget(
        compute=float(compute),
        optimum=float(10**best),
        low=float(10**low),
        high=float(10**high),
        metric=sign * float(c[0] + c[1] * t + c[2] * t * t),
        curve=(sign * float(curve[0]), sign * float(curve[1]), sign * float(curve[2])),
        interpolated=float(10**interpolated),
        at_edge=edge,
        runs=runs,
    )
