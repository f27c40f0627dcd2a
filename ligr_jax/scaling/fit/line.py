"""A straight line in log compute: what AUC does over the few decades one can afford."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ligr_jax.scaling.fit.bootstrap import CONFIDENCE, Array, resample
from ligr_jax.scaling.fit.law import (
    Law,
    checked,
    estimates,
    line_curve,
    names_of,
    refuse_constant,
    refuse_few,
    refuse_one_budget,
)


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
    names = names_of(runs, compute)
    y, c = checked(names, metric, compute=compute)
    refuse_few(len(c), 2)
    refuse_one_budget(c, 2)
    refuse_constant(y)
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

    params, spans = estimates(named, theta, draws, confidence)
    return Law(
        form="line",
        params=params,
        intervals=spans,
        confidence=confidence,
        objective=float((residuals**2).sum()),
        points=len(c),
        units=units,
        resamples=len(draws),
        compute=(float(c.min()), float(c.max())),
        runs=names,
        warnings=tuple(notes),
        free=2,
        centre=centre,
        theta=theta,
        draws=draws,
        residuals=residuals,
    )
