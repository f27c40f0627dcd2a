"""A metric against compute: L(C) = E + A C^-alpha, and ceiling - A C^-alpha where higher is better.

The power law is fitted as in Hoffmann et al. 2022 (appendix D.2): the SUM over runs of
Huber_delta(LSE(a - alpha x, e) - log L) with delta = 1e-3, x = log C less its mean, e = log E. The
saturating curve is that same law of what is missing: 1 - metric = (1 - ceiling) + A C^-alpha.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit.bootstrap import CONFIDENCE, Array, resample
from ligr_jax.scaling.fit.descent import minimise, refit
from ligr_jax.scaling.fit.law import (
    Law,
    checked,
    estimates,
    names_of,
    power_curve,
    refuse_constant,
    refuse_few,
    refuse_no_logarithm,
    refuse_one_budget,
)
from ligr_jax.scaling.fit.powers import ALPHA, LOG_ZERO, box, log_sum, unlog


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
    Intervals are percentiles. On 12 simulated runs those of 90 % covered E, alpha, the gain and the
        metric at ten times the largest compute 86 to 90 times of 100; amid the runs, where the fit
        passes close to single points, only 76.
    Raises BadInput where no such law can be told from the points, saying why.
    """
    names = names_of(runs, compute)
    y, c = checked(names, metric, compute=compute)
    free = 3 if floor is None else 2
    refuse_few(len(c), free)
    refuse_one_budget(c, free)
    refuse_constant(y)
    refuse_no_logarithm(names, y)
    if floor is not None and not 0 <= floor < y.min():
        raise BadInput(f"floor={floor:g} is outside [0, {y.min():g}), below the best run's metric")
    if np.polyfit(np.log(c), y, 1)[0] >= 0:
        raise BadInput("the metric does not fall with compute, so no power law; fit a line instead")
    x, y, centre = np.log(c) - np.log(c).mean(), np.log(y), float(np.log(c).mean())
    zero, (low, high) = y.min() - LOG_ZERO, box(y, floor)

    def residuals(theta: Array) -> tuple[Array, Array]:
        log_l, jac = log_sum(theta, [x])
        return log_l - y, jac

    grid = _starts(x, y, low, high)
    theta, objective, ends = minimise(residuals, grid, len(x), low, high)
    counts, units, notes = resample(c, groups, free, resamples, seed)
    library = np.concatenate([grid, ends])
    bands = np.digitize(library[:, 1], np.log([0.05, 0.3, 1.0]))
    draws = refit(residuals, library, bands, theta, counts, low, high)

    def named(t: Array) -> dict[str, Array]:
        alpha = np.exp(t[..., 1])
        e = unlog(t[..., 2], zero) if floor is None else np.full(alpha.shape, floor)
        last = power_curve(t, np.array([x.max() - np.log(10.0), x.max()]))
        big = np.exp(np.minimum(t[..., 0] + alpha * centre, 700.0))
        return {"E": e, "A": big, "alpha": alpha, "gain_per_decade": last[..., 0] - last[..., 1]}

    params, spans = estimates(named, theta, draws, confidence)
    law = Law(
        form="power",
        params=params,
        intervals=spans,
        confidence=confidence,
        objective=objective,
        points=len(c),
        units=units,
        resamples=len(draws),
        compute=(float(c.min()), float(c.max())),
        runs=names,
        warnings=(),
        free=free,
        centre=centre,
        theta=theta,
        draws=draws,
        residuals=-residuals(theta[None])[0][0],
    )
    return replace(law, warnings=(*notes, *_notes(law, floor)))


def fit_saturating(
    compute: ArrayLike,
    metric: ArrayLike,
    *,
    runs: Sequence[str] = (),
    groups: Sequence[Any] | None = None,
    resamples: int = 1000,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Law:
    """metric = ceiling - A C^-alpha, ceiling <= 1: a metric (AUC) that rises and levels off.

    It is `fit_power` of 1 - metric, so noise is taken as relative to what is missing; arguments
    and errors as there. gain_per_decade is the rise over the last decade of compute seen.
    """
    names = names_of(runs, compute)
    y, c = checked(names, metric, compute=compute)
    if np.any(y >= 1):
        raise BadInput(f"run {names[int(np.argmax(y))]}: metric {y.max():g} is not below 1")
    refuse_constant(y)
    if np.polyfit(np.log(c), y, 1)[0] <= 0:
        raise BadInput("the metric does not rise with compute, so it saturates at no ceiling")
    law = fit_power(
        c, 1.0 - y, runs=names, groups=groups,
        resamples=resamples, confidence=confidence, seed=seed,
    )  # fmt: skip
    params, spans = dict(law.params), dict(law.intervals)
    params = {"ceiling": 1.0 - params.pop("E"), **params}
    if spans:
        low, high = spans.pop("E")
        spans = {"ceiling": (1.0 - high, 1.0 - low), **spans}
    notes = tuple(
        "the ceiling is not identified: these runs do not exclude 1" if w.startswith("E is") else w
        for w in law.warnings
    )
    return replace(law, form="saturating", params=params, intervals=spans, warnings=notes)


def _starts(x: Array, y: Array, low: Array, high: Array) -> Array:
    """A grid over alpha and the share of E in the best metric, (56, 3)."""
    alpha, share = np.meshgrid(np.geomspace(0.01, 2.0, 8), [1e-6, 0.3, 0.6, 0.8, 0.9, 0.97, 0.995])
    e = np.clip(y.min() + np.log(share.ravel()), low[2], high[2])
    a = np.log(np.exp(y.mean()) - np.minimum(np.exp(e), 0.999 * np.exp(y.mean())))
    return np.stack([a, np.log(alpha.ravel()), e], -1)


def _notes(law: Law, floor: float | None) -> list[str]:
    """What the points cannot tell, in words."""
    notes = []
    low, high = law.intervals.get("alpha", (law.params["alpha"],) * 2)
    if low <= 1.01 * ALPHA[0] or high >= 0.99 * ALPHA[1]:
        notes.append(
            f"alpha is not identified: its interval [{low:.3g}, {high:.3g}] reaches the bounds "
            f"of the search {list(ALPHA)}; fix the floor or add budgets"
        )
    lowest = law.intervals.get("E", (law.params["E"],))[0]
    if floor is None and lowest < 0.01 * law.predict(law.compute[1])[0]:
        notes.append("E is not identified: these runs do not exclude a floor of zero")
    return notes
