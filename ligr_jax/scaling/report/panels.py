"""Which figures a study gives, in the order of the page; those of the laws and the shapes."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from ligr_jax.scaling.fit import CONFIDENCE
from ligr_jax.scaling.report import figures
from ligr_jax.scaling.report.budgets import frontier
from ligr_jax.scaling.report.checks import checks
from ligr_jax.scaling.report.dimensions import SETTINGS, lines
from ligr_jax.scaling.report.drawn import (
    Drawn,
    arm_words,
    facts,
    metric_words,
    points,
    runs_of,
    shape_words,
)
from ligr_jax.scaling.report.figures import Series
from ligr_jax.scaling.report.study import AXES, Study
from ligr_jax.scaling.runs import column, read_metrics


def panels(found: Study) -> Iterator[Drawn]:
    """All figures of the study, in the order of the page."""
    if found.table.is_empty():
        return
    for axis in found.axes:
        yield _metric(found, axis, found.metric)
    for axis in found.axes:
        for action in found.aucs[: 3 if axis == found.axis else 1]:
            yield _metric(found, axis, action)
    yield from _dimensions(found)
    for arm, (grid, fit) in found.iso.items():
        yield from _iso_flop(found, arm, grid, fit)
    yield _frontier(found)
    yield from _training(found)
    yield from checks(found)


def _metric(found: Study, axis: str, metric: str) -> Drawn:
    """NE or one action's AUC of every architecture against compute."""
    laws = found.laws[axis]
    is_auc = metric != found.metric
    y, c = column(found.table, metric), column(found.table, axis)
    series, law = [], None
    for arm in found.order:
        rows = [i for i in found.ladder if found.arms[i] == arm and c[i] > 0]
        if not rows:
            continue
        fitted = (
            laws.auc.get(arm, {}).get(metric) if is_auc else laws.power.get(arm, {}).get("free")
        )
        law = fitted or law
        series.append(
            Series(arm_words(arm), c[rows], y[rows], rows, fitted.predict if fitted else None)
        )
    reference = None
    if found.oracle is not None and not is_auc:
        reference = ("oracle", found.oracle)
    band = f"{law.confidence:.0%} interval" if law else ""
    figure = figures.against_compute(
        series, axis=AXES[axis], label=metric_words(metric), reference=reference, band=band
    )
    better = "higher" if is_auc else "lower"
    form = "straight lines in log compute" if is_auc else "laws E + A C^-alpha"
    told = facts(found, runs_of(series), axis, law)
    words = metric_words(metric)
    caption = f"{words[:1].upper()}{words[1:]}, {better} is better. {told}"
    caption += f" Drawn: {form}; residuals of each run below." if law else " No law was fitted."
    if len(found.ladder) < len(found.table):
        sweeps = found.table[list(found.ladder)]["sweep"].unique().sort()
        caption += f" Runs of {', '.join(sweeps)}; the others stand further below."
    name = f"{metric.split('/')[-2]}_auc" if is_auc else "ne"
    return Drawn(
        f"{name}_{axis}", "auc" if is_auc else "ne", figure, caption, points(found, series)
    )


def _dimensions(found: Study) -> Iterator[Drawn]:
    """Runs that vary one dimension alone, on two compute axes."""
    apart = lines(found.table)
    for axis in found.axes[:2] if apart else ():
        c, y = column(found.table, axis), column(found.table, found.metric)
        series = []
        for line in apart:
            rows = [i for i in line.rows if c[i] > 0]
            value = column(found.table[rows], SETTINGS[line.dimension])
            series.append(Series(line.dimension, c[rows], y[rows], rows, order=value))
        series = [s for s in series if len(s.x)]
        if not series:
            continue
        figure = figures.against_compute(series, axis=AXES[axis], label=metric_words(found.metric))
        caption = "Each line varies one dimension and holds all else; lines join means over seeds. "
        yield Drawn(
            f"dimensions_{axis}", "dimensions", figure,
            caption + facts(found, runs_of(series), axis), points(found, series),
        )  # fmt: skip


def _iso_flop(found: Study, arm: str, grid: Any, fit: Any) -> Iterator[Drawn]:
    y = column(found.table, found.metric)
    series = []
    for budget in fit.budgets:
        here = np.isclose(grid.budget, budget.compute)
        rows = grid.rows[here]
        name = f"{figures.power_of_ten(budget.compute)} FLOPs"
        series.append(Series(name, grid.size[here], y[rows], rows.tolist()))
    label = metric_words(found.metric)
    told = facts(found, runs_of(series), found.axis)
    tail = f"_{_slug(arm)}" if arm else ""
    of = f" of {arm}" if arm else ""
    yield Drawn(
        f"isoflop{tail}", "isoflop", figures.iso_flop(series, fit.budgets, label=label),
        f"Size against {label}{of} at each budget: a parabola in log size, and its minimum where "
        f"that lies inside the sizes tried. Runs within 6 % of compute share a budget. {told}",
        points(found, series),
    )  # fmt: skip
    low, high = fit.intervals["exponent"]
    rows = [vars(b) | {"curve": str(tuple(b.curve)), "runs": " ".join(b.runs)} for b in fit.budgets]
    yield Drawn(
        f"isoflop_optima{tail}", "isoflop",
        figures.optima(fit.budgets, fit.predict, axis=AXES[found.axis]),
        f"Size of the best model{of} at each budget: dense parameters grow as compute to the "
        f"{fit.params['exponent']:.2f} ({CONFIDENCE:.0%} interval {low:.2f} to {high:.2f}). Bars "
        f"and band: percentile intervals of bootstrap resamples. {told}",
        pl.DataFrame(rows),
    )  # fmt: skip


def _frontier(found: Study) -> Drawn:
    c, y = column(found.table, found.axis), column(found.table, found.metric)
    rows = [i for i in range(len(c)) if c[i] > 0]
    best = frontier(c, y)
    words = shape_words(found)
    every = Series("all runs", c[rows], y[rows], rows)
    first = Series("best so far", c[best], y[best], best)
    figure = figures.frontier(
        every, first, [words[i] for i in best], axis=AXES[found.axis],
        label=metric_words(found.metric),
    )  # fmt: skip
    caption = (
        "Frontier: the runs that no run of as little compute beats. No law, no interval: the best "
        f"of several seeds is a lucky one. {facts(found, every.runs, found.axis)}"
    )
    return Drawn("frontier", "frontier", figure, caption, points(found, [first]))


def _training(found: Study) -> Iterator[Drawn]:
    names = list(found.order)
    curves, rows, drawn = [], [], []
    for i, (run, arm) in enumerate(zip(found.table["run"], found.arms)):
        if run not in found.runs.places:
            continue
        logged = read_metrics(found.runs.places[run])
        pairs = [
            (r[found.axis], r["train/loss"])
            for r in logged
            if r.get(found.axis) and r.get("train/loss") is not None
        ]
        curve = np.array(pairs, np.float64).reshape(-1, 2)
        curve = curve[np.isfinite(curve).all(1)]
        if len(curve) > 1:
            curves.append((names.index(arm), curve[:, 0], curve[:, 1]))
            drawn.append(i)
            rows += [{"run": run, "x": x, "y": y} for x, y in curve]
    if curves:
        words = [arm_words(n) for n in names]
        figure = figures.training_curves(
            curves, words, axis=AXES[found.axis], label="training loss"
        )
        caption = (
            "Training loss while runs spend compute; darker is larger. Running means over 4% of a "
            f"curve, its first 2% left out; no interval. {facts(found, drawn, found.axis)}"
        )
        yield Drawn("training", "training", figure, caption, pl.DataFrame(rows))


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in text)
