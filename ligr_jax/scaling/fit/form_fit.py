"""Fit of any form of `forms`: one procedure for all sums of powers."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit.bootstrap import CONFIDENCE, Array, resample_levels, scale_levels
from ligr_jax.scaling.fit.checks import (
    checked,
    families_of,
    names_of,
    refuse_constant,
    refuse_few,
    refuse_no_logarithm,
    refuse_one_budget,
    refuse_unidentified,
)
from ligr_jax.scaling.fit.descent import fit_residuals
from ligr_jax.scaling.fit.form_law import FormLaw, form_notes
from ligr_jax.scaling.fit.forms import Form, Points, form_points
from ligr_jax.scaling.fit.intervals import estimates
from ligr_jax.scaling.fit.powers import LOG_ZERO, refuse_no_fall, unlog

SHOWN = {"n": "N", "d": "D", "compute": "compute"}


def fit_form(
    form: Form,
    scales: Mapping[str, ArrayLike],
    metric: ArrayLike,
    *,
    family: Sequence[Any] | None = None,
    runs: Sequence[str] = (),
    groups: Sequence[Any] | None = None,
    resamples: int = 1000,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> FormLaw:
    """Fit a form by a summed Huber loss (delta 1e-3) of log residuals (Hoffmann et al. 2022).

    Intervals are bootstrap percentiles. Percentages of 200 simulated studies (60 of repeated and
    overfitted; `python -m tests.scaling.coverage`) whose nominal 90 % intervals hold exponents,
    floors and a prediction beyond the runs; "few" are 3 x 5, 16 and 30 runs, "seeds" three seeds
    per shape drawn as groups, "wide" a grid with most runs at the small end of two more decades:

        form          runs     normal     heavy tails  few        seeds      wide
        families      3 x 12   93 to 96   94 to 96     92 to 94   90 to 94   90 to 93
        surface       36       94 to 96   95 to 97     94 to 96   89 to 93   93 to 95
        tied          36       96         93 to 95     92 to 94   93 to 94   93 to 96
        rising        36       94 to 95   94 to 96     94 to 97   91 to 94   92 to 94
        repeated      80       88 to 93   90 to 95     90 to 97   85 to 92   83 to 92
        overfitted    80       88 to 97   85 to 100    93 to 98   85 to 92   82 to 98

    Args:
        form: the form.
        scales: `n` and `d` (and `unique`, if data are repeated) or `compute` of each run.
        metric: positive metric of each run, (n,); below 1 if the form rises.
        family: label of each run's family, if the form has families.
        runs: as in `fit_power`.
        groups: as in `fit_power`.
        resamples: as in `fit_power`.
        confidence: as in `fit_power`.
        seed: as in `fit_power`.

    Returns:
        The law.

    Raises:
        BadInput: the runs do not determine the form, or a value is invalid; the message says why.
    """
    inputs = tuple(scales)
    names = names_of(runs, scales[inputs[0]])
    y, *arrays = checked(names, metric, **scales)
    values = dict(zip(inputs, arrays))
    families, member = families_of(family, len(y))
    if form.differ and len(families) < 2:
        raise BadInput(f"all runs are of one family {families[0]!r}: fit a law without families")
    if form.rises:
        if y.max() >= 1:
            raise BadInput(f"run {names[int(np.argmax(y))]}: metric {y.max():g} is not below 1")
        y = 1.0 - y
    theta_names = form.names(families)
    free = len(theta_names)
    refuse_few(len(y), free)
    refuse_constant(y)
    refuse_no_logarithm(names, y)
    if "compute" in values:
        refuse_one_budget(values["compute"], 3)
    else:
        refuse_unidentified(values["n"], values["d"], values.get("unique"))

    # Centred logs: centring removes the correlation between a coefficient and its exponent.
    points = form_points(form, values, member, families)
    centre = {k: float(x[np.isfinite(x)].mean()) for k, x in points.logs.items()}
    points = points.centred(centre)
    log_y = np.log(y)
    low, high = form.box(log_y, theta_names)

    def residuals(theta: Array) -> tuple[Array, Array]:
        log_l, jac = points.log_metric(form, theta)
        return log_l - log_y, jac

    # A resample must have three levels of each scale, every family, and as many distinct runs as
    # parameters, or its minimum is arbitrary.
    levels = [(scale_levels(values[k]), 3) for k in ("compute", "n", "d") if k in values]
    levels += [(member, len(families)), (np.arange(len(y)), free)]
    counts, units, notes = resample_levels(levels, groups, free, resamples, seed)
    exponent = slice(len(form.powers), len(form.powers) + len(form.exponents))

    def band_of(theta: Array) -> NDArray[np.int64]:
        size = np.digitize(theta[:, exponent][:, :2], np.log([0.2, 0.7]))
        return size @ 3 ** np.arange(size.shape[1])

    grid = np.clip(_starts(form, points, y), low, high)
    best = fit_residuals(residuals, grid, band_of, counts, low, high)
    at = {name: k for k, name in enumerate(theta_names)}
    for p in form.powers:
        if p.sign < 0:
            x = points.scale(form, best.theta[None], p.scale).log[0]
            a, u = best.theta[at[p.coefficient]], best.theta[at[p.exponent]]
            refuse_no_fall(SHOWN[p.scale], x, a, u, y, form.rises)

    def named(t: Array) -> dict[str, Array]:
        return _named(form, theta_names, centre, log_y.min() - LOG_ZERO, t)

    params, spans, without = estimates(named, best.theta, best.draws, confidence)
    law = FormLaw(
        form=form.name,
        params=params,
        intervals=spans,
        confidence=confidence,
        objective=best.objective,
        points=len(y),
        units=units,
        resamples=len(best.draws),
        runs=names,
        warnings=(),
        free=free,
        inputs=inputs,
        families=families,
        ranges={k: (float(v.min()), float(v.max())) for k, v in values.items()},
        shape=form,
        centre=centre,
        theta=best.theta,
        draws=best.draws,
        residuals=-best.residuals,
    )
    return replace(law, warnings=(*notes, *without, *form_notes(law, float(y.min()))))


def _starts(form: Form, points: Points, metric: Array) -> Array:
    """Return starts on a grid of exponents and decays, (S, p).

    For given exponents and decays the metric is linear in coefficients and floors, which
    nonnegative least squares solves (with N' = N and without factors of families).
    """
    exponents = np.geomspace(0.03, 2.0, 7 if len(form.exponents) < 3 else 4)
    floors = [points.family == k for k in range(points.family.max() + 1)]
    if form.differ != "floor":
        floors = [np.ones(len(metric), bool)]
    factors = [k for k in points.names if k.startswith("factor")]
    mean = np.array([np.log(metric)[points.family == k].mean() for k in range(1 + len(factors))])
    rows = []
    for shape in itertools.product(exponents, repeat=len(form.exponents)):
        value = dict(zip(form.exponents, shape))
        for decays in itertools.product((1.0, 5.0, 25.0), repeat=len(form.decays)):
            logs = dict(points.logs)
            if form.decays:
                extra = -decays[0] * np.expm1(-points.repeats / decays[0])
                logs["d"] = logs["d"] + np.log1p(extra)
            columns = [np.exp(p.sign * value[p.exponent] * logs[p.scale]) for p in form.powers]
            design = np.stack([*columns, *floors], 1) / metric[:, None]
            solution = np.log(np.maximum(nnls(design, np.ones(len(metric)))[0], 1e-30))
            linear = np.split(solution, [len(columns)])
            start = [*linear[0], *np.log(shape), *linear[1], *np.log(decays)]
            rows.append([*start, *np.zeros(len(factors))])
            if factors:
                rows.append([*start, *(mean[1:] - mean[0])])
    return np.array(rows)


def _named(
    form: Form, names: Sequence[str], centre: Mapping[str, float], zero: float, t: Array
) -> dict[str, Array]:
    """Return the parameters of a form from theta (..., p)."""
    at = {name: t[..., k] for k, name in enumerate(names)}
    found = {}
    for k in names:
        if k[0] == "E":
            found[k.replace("E", "ceiling") if form.rises else k] = (
                1.0 - unlog(at[k], zero) if form.rises else unlog(at[k], zero)
            )
    for p in form.powers:
        shift = -p.sign * np.exp(at[p.exponent]) * centre[p.scale]
        found[p.coefficient] = unlog(at[p.coefficient], zero) * np.exp(np.clip(shift, -500, 500))
    found |= {k: np.exp(at[k]) for k in (*form.exponents, *form.decays)}
    found |= {k: np.exp(v) for k, v in at.items() if k.startswith("factor")}
    if len(form.exponents) > 1:
        total = found["alpha"] + found["beta"]
        found |= {"a": found["beta"] / total, "b": found["alpha"] / total}
    if form.name == "tied":
        found["eta"] = found["alpha"] / 2.0
    return found
