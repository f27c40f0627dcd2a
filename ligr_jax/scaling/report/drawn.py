"""A figure with its sentences and its points, and the words that all figures share."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl
from matplotlib.figure import Figure

from ligr_jax.scaling.fit import Law
from ligr_jax.scaling.report.figures import Series
from ligr_jax.scaling.report.study import Study
from ligr_jax.scaling.runs import shapes

DEFINED = {
    "flops_model": (
        "flops_model counts what the model computes, forward times 3, attention by the pairs that "
        "its mask allows"
    ),
    "flops_paper": "flops_paper is dense parameters times tokens seen, without attention",
    "device_seconds": "device_seconds is wall-clock seconds of training times devices",
}
LETTERS = {"config/data.seq_len": "T", "config/model.depth": "L", "config/model.width": "D"}


@dataclass(frozen=True)
class Drawn:
    """A figure, the section it stands in, the sentences under it, and its points as a table."""

    name: str
    section: str
    figure: Figure
    caption: str
    points: pl.DataFrame


def metric_words(metric: str) -> str:
    """validation/ne -> "validation NE"; validation/click/auc -> "validation AUC, click"."""
    split, *task, name = metric.split("/")
    return f"{split} {name.upper()}" + (f", {task[0]}" if task else "")


def arm_words(arm: str) -> str:
    return arm or "all runs"


def shape_words(found: Study) -> list[str]:
    """T, depth and width of every run of the table, as "T64 L2 D32"."""
    known = [c for c in LETTERS if c in found.table.columns]
    rows = found.table.select(known).iter_rows() if known else [()] * len(found.table)
    return [" ".join(f"{LETTERS[c]}{v}" for c, v in zip(known, row)) for row in rows]


def facts(found: Study, runs: Iterable[int], axis: str, law: Law | None = None) -> str:
    """Number of runs, seeds, definition of the axis, kind of interval: under every figure."""
    rows = sorted(set(runs))
    alike = shapes(found.table)
    often = Counter(alike[i] for i in rows)
    least, most = min(often.values()), max(often.values())
    seeds = f"{most} seed{'s' * (most > 1)}" if least == most else f"{least} to {most} seeds"
    words = f"{len(rows)} runs, {seeds} per shape. {DEFINED.get(axis, axis)}."
    if law and law.resamples:
        unit = "runs" if law.units == law.points else "shapes with all their seeds"
        words += (
            f" Bands: {law.confidence:.0%} percentile intervals of {law.resamples} bootstrap "
            f"resamples of {unit}."
        )
    return words


def runs_of(series: Sequence[Series]) -> list[int]:
    return [i for s in series for i in s.runs]


def points(found: Study, series: Sequence[Series]) -> pl.DataFrame:
    names = found.table["run"].to_list()
    rows = [
        {"run": names[i], "series": s.name, "x": float(x), "y": float(y)}
        for s in series
        for i, x, y in zip(s.runs, s.x, s.y)
    ]
    return pl.DataFrame(rows)
