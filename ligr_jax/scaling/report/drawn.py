"""A figure with caption and data points, and the parts common to all captions."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl
from matplotlib.figure import Figure

from ligr_jax.config import unescape
from ligr_jax.runs.columns import config_column
from ligr_jax.scaling.fit import Law
from ligr_jax.scaling.report.figures import Series
from ligr_jax.scaling.report.study import Study

DEFINED = {
    "flops_model": (
        "flops_model counts the FLOPs of the model (3 times the forward pass; attention: only "
        "pairs that the mask allows)"
    ),
    "flops_paper": "flops_paper is dense parameters times tokens, without attention",
    "device_seconds": "device_seconds is wall-clock seconds of training times number of devices",
}
LETTERS = {
    config_column("data.seq_len"): "T",
    config_column("model.depth"): "L",
    config_column("model.width"): "D",
}


@dataclass(frozen=True)
class Drawn:
    """A figure, its name and section on the page, its caption, and its points as a table."""

    name: str
    section: str
    figure: Figure
    caption: str
    points: pl.DataFrame


def metric_words(metric: str) -> str:
    """Return a readable name: "validation NE" for validation/ne, "validation AUC, click" etc."""
    split, name = metric.split("/")[0], metric.rpartition("/")[2]
    action = action_of(metric)
    return f"{split} {name.upper()}" + (f", {action}" if action else "")


def action_of(metric: str) -> str:
    """Return the action of a metric: "click" for validation/click/auc, "" for validation/ne."""
    parts = metric.split("/")
    return unescape(parts[1]) if len(parts) > 2 else ""


def arm_words(arm: str) -> str:
    """Return the name of an architecture; "" (there is only one) becomes "all runs"."""
    return arm or "all runs"


def shape_words(study: Study) -> list[str]:
    """Return T, depth and width of every run of the table, as "T64 L2 D32"."""
    known = [c for c in LETTERS if study.table.has(c)]
    rows = study.table.rows()
    return [" ".join(f"{LETTERS[c]}{row[c]}" for c in known) for row in rows]


def facts(study: Study, runs: Iterable[int], axis: str, law: Law | None = None) -> str:
    """Return the end of every caption: runs, seeds, definition of the axis, kind of interval.

    Args:
        study: the study.
        runs: row numbers of the runs in the figure.
        axis: column of compute.
        law: a law drawn in the figure; None if there is none.
    """
    rows = sorted(set(runs))
    shape_of_run = study.table.shapes()
    count = Counter(shape_of_run[i] for i in rows)
    least = min(count.values())
    most = max(count.values())
    seeds = f"{most} seed{'s' * (most > 1)}" if least == most else f"{least} to {most} seeds"
    words = f"{len(rows)} runs, {seeds} per shape. {DEFINED.get(axis, axis)}."
    if law and law.resamples:
        unit = "runs" if law.units == law.points else "shapes (all seeds of a shape together)"
        words += (
            f" Bands: {law.confidence:.0%} percentile intervals of {law.resamples} bootstrap "
            f"resamples of {unit}."
        )
    return words


def runs_of(series: Sequence[Series]) -> list[int]:
    """Return the row numbers of all runs of the series."""
    return [i for s in series for i in s.runs]


def points(study: Study, series: Sequence[Series]) -> pl.DataFrame:
    """Return the points of a figure as a table: run, series, x, y."""
    names = study.table.names
    rows = [
        {"run": names[i], "series": s.name, "x": float(x), "y": float(y)}
        for s in series
        for i, x, y in zip(s.runs, s.x, s.y)
    ]
    return pl.DataFrame(rows)


def split_caption(caption: str) -> tuple[str, str]:
    """Return the first sentence of a caption, and the others."""
    first, stop, rest = caption.partition(". ")
    return first + stop.rstrip(), rest


def slug(text: str) -> str:
    """Return a text as a part of the name of a file and of an id."""
    return "".join(c if c.isalnum() else "_" for c in text)
