"""Which figures a study gives, in the order of the page; those of the laws and the shapes."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from ligr_jax.config import file_name
from ligr_jax.runs.columns import metric_name
from ligr_jax.runs.files import RunFiles
from ligr_jax.runs.rows import DamagedRows, read_rows
from ligr_jax.scaling.direction import lower_is_better
from ligr_jax.scaling.fit import CONFIDENCE
from ligr_jax.scaling.report import figures
from ligr_jax.scaling.report.budgets import frontier_rows
from ligr_jax.scaling.report.checks import checks
from ligr_jax.scaling.report.dimensions import SETTINGS, lines
from ligr_jax.scaling.report.drawn import (
    Drawn,
    action_of,
    arm_words,
    facts,
    metric_words,
    points,
    runs_of,
    shape_words,
    slug,
)
from ligr_jax.scaling.report.figures import Series
from ligr_jax.scaling.report.preferred import forms_figures
from ligr_jax.scaling.report.study import AXES, Study
from ligr_jax.scaling.report.style import power_of_ten


def panels(study: Study) -> Iterator[Drawn]:
    """Yield all figures of the study, in the order of the page."""
    if not len(study.table):
        return
    for axis in study.axes:
        yield _metric(study, axis, study.metric)
    for axis in study.axes:
        for action in study.aucs[: 3 if axis == study.axis else 1]:
            yield _metric(study, axis, action)
    yield from forms_figures(study)
    yield from _dimensions(study)
    for arm, (grid, fit) in study.iso.items():
        yield from _iso_flop(study, arm, grid, fit)
    yield _frontier(study)
    yield from _training(study)
    yield from checks(study)


def _metric(study: Study, axis: str, metric: str) -> Drawn:
    """Draw NE, or the AUC of one action, of every architecture against compute."""
    laws = study.laws[axis]
    is_auc = metric != study.metric
    y = study.table.numbers(metric)
    c = study.table.numbers(axis)
    series = []
    law = None
    for arm in study.order:
        rows = [i for i in study.ladder if study.arms[i] == arm and c[i] > 0]
        if not rows:
            continue
        fitted = (
            laws.auc.get(arm, {}).get(metric) if is_auc else laws.power.get(arm, {}).get("free")
        )
        law = fitted or law
        series.append(
            Series(
                name=arm_words(arm),
                x=c[rows],
                y=y[rows],
                runs=rows,
                predict=fitted.predict if fitted else None,
            )
        )
    reference = None
    if study.oracle is not None and not is_auc:
        reference = ("oracle", study.oracle)
    band = f"{law.confidence:.0%} interval" if law else ""
    figure = figures.against_compute(
        series, axis=AXES[axis], label=metric_words(metric), reference=reference, band=band
    )
    better = "lower" if lower_is_better(metric) else "higher"
    form = "straight lines in log compute" if is_auc else "power laws E + A C^-alpha"
    words = metric_words(metric)
    caption = f"{words[:1].upper()}{words[1:]}, {better} is better. "
    caption += facts(study, runs_of(series), axis, law)
    caption += (
        f" Curves: fitted {form}. Lower panel: residuals of the runs."
        if law
        else " No law was fitted."
    )
    if len(study.ladder) < len(study.table):
        sweeps = sorted(set(study.table.take(study.ladder).first_sweeps))
        caption += (
            f" Shown are the runs of the ladder ({', '.join(sweeps)}), to which laws are fitted; "
            "the table at the end lists all runs."
        )
    name = f"{file_name(action_of(metric))}_auc" if is_auc else "ne"
    return Drawn(
        name=f"{name}_{axis}",
        section="auc" if is_auc else "ne",
        figure=figure,
        caption=caption,
        points=points(study, series),
    )


def _dimensions(study: Study) -> Iterator[Drawn]:
    """Draw the runs that vary one dimension alone, on two compute axes."""
    apart = lines(study.table)
    for axis in study.axes[:2] if apart else ():
        c = study.table.numbers(axis)
        y = study.table.numbers(study.metric)
        series = []
        for line in apart:
            rows = [i for i in line.rows if c[i] > 0]
            value = study.table.take(rows).numbers(SETTINGS[line.dimension])
            series.append(Series(name=line.dimension, x=c[rows], y=y[rows], runs=rows, order=value))
        series = [s for s in series if len(s.x)]
        if not series:
            continue
        figure = figures.against_compute(series, axis=AXES[axis], label=metric_words(study.metric))
        caption = (
            "Each line varies one dimension and keeps all other settings fixed; lines join the "
            "means over seeds. "
        )
        yield Drawn(
            name=f"dimensions_{axis}",
            section="dimensions",
            figure=figure,
            caption=caption + facts(study, runs_of(series), axis),
            points=points(study, series),
        )


def _iso_flop(study: Study, arm: str, grid: Any, fit: Any) -> Iterator[Drawn]:
    """Draw the iso-FLOP curves of one architecture, and the law through their minima."""
    y = study.table.numbers(study.metric)
    series = []
    for budget in fit.budgets:
        in_budget = np.isclose(grid.budget, budget.compute)
        rows = grid.rows[in_budget]
        name = f"{power_of_ten(budget.compute)} FLOPs"
        series.append(Series(name=name, x=grid.size[in_budget], y=y[rows], runs=rows.tolist()))
    label = metric_words(study.metric)
    ending = facts(study, runs_of(series), study.axis)
    suffix = f"_{slug(arm)}" if arm else ""
    of_arm = f" of {arm}" if arm else ""
    yield Drawn(
        name=f"isoflop{suffix}",
        section="isoflop",
        figure=figures.iso_flop(series, fit.budgets, label=label),
        caption=(
            f"{label[:1].upper()}{label[1:]}{of_arm} against size at each compute budget. Curves: "
            "parabolas in log size. Stars: minima, if inside the sizes tried. Runs within 6 % of "
            f"compute share a budget. {ending}"
        ),
        points=points(study, series),
    )
    low, high = fit.intervals["exponent"]
    rows = [vars(b) | {"curve": str(tuple(b.curve)), "runs": " ".join(b.runs)} for b in fit.budgets]
    yield Drawn(
        name=f"isoflop_optima{suffix}",
        section="isoflop",
        figure=figures.optima(fit.budgets, fit.predict, axis=AXES[study.axis]),
        caption=(
            f"Best size{of_arm} at each compute budget. Dense parameters grow as compute to the "
            f"power {fit.params['exponent']:.2f} ({CONFIDENCE:.0%} interval {low:.2f} to "
            f"{high:.2f}). Bars and band: bootstrap intervals. {ending}"
        ),
        points=pl.DataFrame(rows),
    )


def _frontier(study: Study) -> Drawn:
    """Draw all runs and the frontier of the best run at each compute."""
    c = study.table.numbers(study.axis)
    y = study.table.numbers(study.metric)
    rows = [i for i in range(len(c)) if c[i] > 0]
    best = frontier_rows(c, y)
    words = shape_words(study)
    all_runs = Series(name="all runs", x=c[rows], y=y[rows], runs=rows)
    best_runs = Series(name="best so far", x=c[best], y=y[best], runs=best)
    figure = figures.frontier(
        all_runs, best_runs, [words[i] for i in best], axis=AXES[study.axis],
        label=metric_words(study.metric),
    )  # fmt: skip
    caption = (
        "Frontier: runs that are better than every run with as much compute or less. It has no "
        "interval, and it is optimistic, because the best of several seeds is partly luck. "
        f"{facts(study, all_runs.runs, study.axis)}"
    )
    return Drawn(
        name="frontier",
        section="frontier",
        figure=figure,
        caption=caption,
        points=points(study, [best_runs]),
    )


def _training(study: Study) -> Iterator[Drawn]:
    """Draw the training loss of every run that has logged metrics."""
    names = list(study.order)
    curves: list[tuple[int, np.ndarray, np.ndarray]] = []
    rows: list[dict[str, Any]] = []
    drawn: list[int] = []
    for i, (run, arm) in enumerate(zip(study.table.names, study.arms)):
        if run not in study.runs.directories:
            continue
        try:
            logged = read_rows(RunFiles(study.runs.directories[run]).metrics)
        except DamagedRows:  # named among the notes of the study
            continue
        axis = metric_name(study.axis)
        pairs = [
            (r[axis], r["train/loss"])
            for r in logged
            if r.get(axis) and r.get("train/loss") is not None
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
            curves, words, axis=AXES[study.axis], label="training loss"
        )
        caption = (
            "Training loss against compute spent; darker lines are larger runs. Curves are running "
            "means over 4% of their length; the first 2% are not shown. "
            f"{facts(study, drawn, study.axis)}"
        )
        yield Drawn(
            name="training",
            section="training",
            figure=figure,
            caption=caption,
            points=pl.DataFrame(rows),
        )
