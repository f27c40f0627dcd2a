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
from ligr_jax.scaling.fit.isoflop_draws import fit_parabola, parabola_residuals, resample_optima
from ligr_jax.scaling.fit.isoflop_law import Budget, IsoFlop
from ligr_jax.scaling.fit.minima import MINIMA, Cells, akima, cells_of, distinct_sizes

SIZES = {"parabola": 3, "window": 5, "akima": 5}  # fewest sizes of a budget
NAMED = 3  # most budgets with too few sizes that are named


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
    noise: float | None = None,
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
    budgets, and it counts the misfit of the parabolas as noise. In 200
    simulated studies (`python -m tests.scaling.coverage`) of four budgets with 11 sizes and compute
    that jitters by 3 %, nominal 90 % intervals covered exponent and prediction in 92 to 97 %
    (parabola), 98 to 99 % (window) and 100 % (akima); with heavy tails 93 to 95, 95 to 96 and 98 to
    99 %; with 7 sizes 94, 97 to 98 and 99 %; with three seeds per size as groups 90 to 98, 97 to 98
    and 100 %; on sizes from 20 times too small to 8 times too large 98, 97 and 99 to 100 %.

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
        noise: standard deviation of the metric between seeds, if it is known (see `noise_floor`).
            Then the resamples have this noise instead of the residuals', a minimum is the median of
            its resamples, and a budget that loses its minimum in half of them is left out, as in
            Porian et al. 2024; the standard error of a weight is at least a third of the distance
            between sizes. This reduces the noise that akima follows.
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
    if noise is not None and not 0 < noise < np.inf:
        raise BadInput(f"noise={noise:g}: give the positive standard deviation of a run's metric")
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
    few = []
    centres, cells, members = [], [], []
    for k in range(index.max() + 1):
        inside = index == k
        middle = float(np.exp(np.log(c[inside]).mean()))
        cell = cells_of(s[inside], y[inside], labels[inside], share[inside])
        sizes = len(distinct_sizes(cell.z)[0])
        if sizes < SIZES[minimum]:
            few.append(
                f"budget {middle:.4g}: {sizes} distinct sizes; minimum={minimum} needs "
                f"{SIZES[minimum]}, so this budget is left out"
            )
            continue
        centres.append(middle)
        cells.append(cell)
        members.append(tuple(n for n, kept in zip(names, inside) if kept))
    notes = few[:NAMED]
    if len(few) > NAMED:
        notes.append(f"{len(few) - NAMED} more budgets have too few sizes and are left out")
    if len(cells) < 2 and notes:
        raise BadInput(f"{len(cells)} budgets remain, and a power law needs 2: {'; '.join(notes)}")
    compute = np.array(centres)
    find = MINIMA[minimum]
    curves = [fit_parabola(cell, minimum, width) for cell in cells]
    optima = np.array([float(find(cell, cell.metric, width)) for cell in cells])
    optima_draws = resample_optima(cells, curves, minimum, width, noise, resamples, seed)
    kept = np.isfinite(optima_draws).mean(axis=0) if resamples else np.ones(len(cells))
    if noise is not None and resamples:
        optima = np.where((kept < 0.5) | np.isnan(optima), np.nan, _median(optima_draws))
    inner = np.isfinite(optima)
    if inner.sum() < 2:
        raise BadInput(
            f"{inner.sum()} of {len(cells)} budgets have their minimum within the sizes tried; a "
            "power law needs 2: add larger or smaller sizes"
        )

    # Residual bootstrap of the minima. With three sizes per budget every parabola interpolates its
    # points and the residuals, which are zero, carry no information on the noise.
    freedom: int | None = sum(len(cell.z) for cell in cells) - 3 * len(cells)
    if noise is not None:
        freedom = None  # the noise is not an estimate
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
        if noise is not None:
            spacing = np.array([np.ptp(cell.z) / (len(cell.z) - 1) for cell in cells])[inner]
            trust = kept[inner] ** 2 * np.minimum(trust, (3.0 / spacing) ** 2)
    theta = _line(x[inner], optima[None, inner], trust)[0]
    draws = _line(x[inner], usable, trust)

    def named(t: Array) -> dict[str, Array]:
        return {"exponent": t[..., 1], "coefficient": 10 ** t[..., 0]}

    params, spans, without = estimates(named, theta, draws, confidence, freedom)
    residuals = [parabola_residuals(cell, curve) for cell, curve in zip(cells, curves)]
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
                c=curves[k][0],
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


def _median(draws: Array) -> Array:
    """Return the median of the finite draws of each budget, (budgets,); NaN if there are none."""
    columns = [column[np.isfinite(column)] for column in draws.T]
    return np.array([np.median(column) if len(column) else np.nan for column in columns])


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
    freedom: int | None,
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
