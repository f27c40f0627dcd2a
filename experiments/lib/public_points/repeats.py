"""What is a repeated interaction worth? srt: R_D by metric and marks, and losses that turn up."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.public_points.drawing import figure, legend, shades
from lib.public_points.points import (
    NEGATIVES,
    Answer,
    Tables,
    by_size,
    fit_or_refusal,
    note,
    parameter,
)
from lib.results import Cell, Column, Study
from ligr_jax.scaling.fit import FORMS, fit_form
from ligr_jax.scaling.fit.forms import DECAY
from ligr_jax.scaling.report.style import BLUE, GREY, ORANGE, compute_axis

RESAMPLES = 250  # at most: a fit of 600 marks with 1,000 takes minutes
WARM_UP = 15  # epochs in which the learning rate rises
LOSS, NDCG = "loss", "NDCG@5"
METRICS = {LOSS: "valid_loss", NDCG: "valid_ndcg5"}
ALL, LATE, FALLING = "all", f"from epoch {WARM_UP}", "to the least loss"
WORTH = replace(FORMS["repeated"], decays=("R_D",))
WORTHS = [
    Column("metric"),
    Column("negatives", "d"),
    Column("marks"),
    Column("floor"),
    Column("alpha", ".3f"),
    Column("beta", ".3f"),
    Column("R_D", ".3g"),
    Column("note of the fit"),
]
TURNS = [
    Column("training targets", ",d"),
    Column("alpha", ".3f"),
    Column("beta", ".3f"),
    Column("gamma", ".3f"),
    Column("note of the fit"),
]
WORTHS_CAPTION = (
    "srt, marks of every 5 epochs; 90 % intervals from resampled runs. R_D: number of repeats over "
    "which a repeat loses its worth, searched from 0.01 to 10,000."
)
TURNS_CAPTION = (
    "srt, loss with 100 negatives, all marks of one data size: the form for a loss that turns up. "
    "gamma: exponent of the term that turns it up."
)


class Fit(NamedTuple):
    """A fit of the worth of a repeat: what was fitted, and its law or the refusal."""

    metric: str
    negatives: int
    marks: str
    floor: str
    law: Any


def answer(study: Study, tables: Tables, resamples: int) -> Answer:
    """Add R_D by metric and marks, and the form for a loss that turns up, at each data size."""
    resamples = min(resamples, RESAMPLES)
    fits = list(worths(tables["srt_marks"], resamples))
    rows: list[list[Cell]] = [
        [*f[:4], *[parameter(f.law, k) for k in ("alpha", "beta", "R_D")], note(f.law)]
        for f in fits
    ]
    study.add("repeats", WORTHS_CAPTION, WORTHS, rows)
    sizes = by_size(tables["srt_marks"])
    turned = 0
    turns: list[list[Cell]] = []
    for part in sizes:
        law = fit_marks(FORMS["overfitted"], part, LOSS, resamples)
        turned += not isinstance(law, str) and law.params["C"] > 0
        cells = [parameter(law, k) for k in ("alpha", "beta", "gamma")]
        turns.append([part["D"][0], *cells, note(law)])
    study.add("turns", TURNS_CAPTION, TURNS, turns)

    def law_of(metric: str, marks: str, floor: str) -> Any:
        return next(f.law for f in fits if f[:4] == (metric, NEGATIVES, marks, floor))

    common = {metric: law_of(metric, ALL, "one") for metric in METRICS}
    own = words(law_of(NDCG, ALL, "per data size"))
    falling = words(law_of(LOSS, FALLING, "per data size"))
    return Answer(
        "What is a repeated interaction worth?",
        "it depends on the metric: nothing for the loss (R_D at its lower bound), as much as new "
        "data for NDCG (R_D at its upper bound)",
        f"with one floor for all data sizes: loss {words(common[LOSS])}; NDCG@5 "
        f"{words(common[NDCG])}. With a floor per data size: NDCG@5 {own}; loss {falling} up to "
        f"the least loss of each run, after which it turns up on {turned} of {len(sizes)} data "
        "sizes",
        at_bound(common[LOSS], 0) and at_bound(common[NDCG], 1),
        draw(tables, fits),
        "the catalogue, and with it the loss and NDCG@5 that can be reached, changes with the data "
        "size; one floor for all sizes moves that difference into R_D, which ends at its bound, or "
        "leaves no fall with N, which the fit now refuses",
    )


def worths(marks: pl.DataFrame, resamples: int) -> Iterator[Fit]:
    """Yield the fits of the worth of a repeat, with one floor and with a floor per data size."""
    own = replace(WORTH, differ="floor")
    for metric, negatives, which, form in (
        (LOSS, 100, ALL, WORTH),
        (LOSS, 100, ALL, own),
        (LOSS, 100, FALLING, own),
        (LOSS, 300, FALLING, own),
        (NDCG, 100, ALL, WORTH),
        (NDCG, 100, LATE, WORTH),
        (NDCG, 100, ALL, own),
        (NDCG, 100, LATE, own),
        (NDCG, 300, ALL, own),
    ):
        rows = chosen(marks.filter(negatives=negatives), which)
        floor = "per data size" if form.differ else "one"
        yield Fit(metric, negatives, which, floor, fit_marks(form, rows, metric, resamples))


def chosen(marks: pl.DataFrame, which: str) -> pl.DataFrame:
    """Return all marks, those after the warm-up, or those up to the least loss of their run."""
    if which == LATE:
        return marks.filter(pl.col("epoch") >= WARM_UP)
    if which == FALLING:
        best = pl.col("epoch").sort_by("valid_loss").first().over("run")
        return marks.filter(pl.col("epoch") <= best)
    return marks


def fit_marks(form: Any, part: pl.DataFrame, metric: str, resamples: int) -> Any:
    """Return the law in N and repeated D, or the refusal."""
    scales = {"n": part["N"], "d": part["D_seen"], "unique": part["D"]}
    return fit_or_refusal(
        fit_form,
        replace(form, rises=metric == NDCG),
        {name: values.to_numpy() for name, values in scales.items()},
        part[METRICS[metric]].to_numpy(),
        family=part["D"].to_list() if form.differ else None,
        groups=part["run"].to_list(),
        resamples=resamples,
    )


def at_bound(law: Any, end: int) -> bool:
    """Return whether R_D is at the lower (0) or upper (1) bound of its search."""
    return not isinstance(law, str) and bool(np.isclose(law.params["R_D"], DECAY[end]))


def words(law: Any) -> str:
    """Return R_D with its interval, or the refusal."""
    if isinstance(law, str):
        return law
    text = f"R_D = {law.params['R_D']:.3g}"
    span = law.intervals.get("R_D")
    return f"{text} [{span[0]:.3g}, {span[1]:.3g}]" if span else text


def draw(tables: Tables, fits: list[Fit]) -> Figure:
    """Draw loss and NDCG against the epoch, with the warm-up, and R_D of all fits."""
    parts = by_size(tables["srt_marks"])
    with figure(8.6, 6.6) as drawing:
        halves = drawing.subfigures(2, 1, squeeze=False, height_ratios=(1.3, 1))
        top, bottom = halves[:, 0]
        panels = top.subplots(1, 2)
        for axes, (title, metric) in zip(panels, METRICS.items()):
            for part, color in zip(parts, shades(len(parts))):
                mean = part.group_by("epoch").agg(pl.col(metric).mean()).sort("epoch")
                name = f"{part['D'][0] / 1e6:.2g} M targets"
                axes.plot(mean["epoch"], mean[metric], "o-", color=color, ms=3.5, label=name)
            axes.axvspan(0, WARM_UP, color=GREY, alpha=0.2, lw=0)
            axes.set_xlim(0, None)
            axes.set_xlabel("epoch (grey: warm-up of the rate)")
            axes.set_ylabel(f"{title}, mean over runs")
        _draw_worths(bottom.subplots(), [fit for fit in fits if not isinstance(fit.law, str)])
        legend(top, panels[0], columns=len(parts))
        return drawing


def _draw_worths(axes: Axes, fits: list[Fit]) -> None:
    """Draw R_D of each fit with its interval; dashed lines are the bounds of the search."""
    heights = np.arange(len(fits))[::-1]
    for y, fit in zip(heights, fits):
        color = ORANGE if fit.floor == "one" else BLUE
        value = fit.law.params["R_D"]
        axes.plot(fit.law.intervals.get("R_D", (value, value)), (y, y), color=color, lw=2.5)
        axes.plot(value, y, "o", color=color, ms=6)
    for bound in DECAY:
        axes.axvline(bound, color=GREY, ls="--", lw=1)
    axes.set_ylim(-0.6, len(fits) - 0.4)
    floors = {"one": "one floor", "per data size": "a floor per data size"}
    names = [
        f"{f.metric}, {f.negatives} negatives; marks: {f.marks}; {floors[f.floor]}" for f in fits
    ]
    axes.set_yticks(heights, names, fontsize=9)
    compute_axis(axes, np.array(DECAY), "R_D, repeats (dashed: bounds)")
