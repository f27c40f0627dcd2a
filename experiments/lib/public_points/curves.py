"""Which published scaling curves survive an interval? UniRank: AUC against training FLOPs."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.public_points.drawing import band, figure, legend
from lib.public_points.points import SEED, Answer, Tables, is_clear, parameter
from lib.results import Cell, Column, Study
from ligr_jax.scaling.fit import Law, fit_line
from ligr_jax.scaling.report.style import BLUE, GREY, ORANGE, compute_axis

SEEDS_AUC = 0.001  # what the authors say that a seed moves AUC by
SWEEPS = [(m, a) for m in ("OneTrans", "RankMixer") for a in ("width", "length", "depth")]
CLICK, MEAN, LOSS = "test_is_click_auc", "test_auc_mean", "test_logloss_sum"
METRICS = {CLICK: "click AUC", MEAN: "mean AUC of six actions", LOSS: "summed log loss"}
COLUMNS = [
    Column("curve"),
    Column("runs", "d"),
    *(Column(title, "+.4f") for title in METRICS.values()),
]
CAPTION = (
    "UniRank on KuaiRand-27K, test: change per decade of training FLOPs; 90 % intervals. A line "
    "through two runs has none."
)


def answer(study: Study, tables: Tables, resamples: int) -> Answer:
    """Add the change of each metric per decade of training FLOPs along each published curve."""
    rows: list[list[Cell]] = []
    clear = dict.fromkeys(METRICS, 0)
    falling = 0
    for model, axis in SWEEPS:
        runs = sweep(tables["unirank_scaling"], model, axis)
        cells: list[Cell] = []
        for metric in METRICS:
            law = fit(runs, metric, resamples)
            span = law.intervals.get("slope", (-np.inf, np.inf))
            clear[metric] += is_clear(span)
            falling += metric == CLICK and span[1] < 0
            cells.append(parameter(law, "slope"))
        rows.append([f"{model}, {axis}", len(runs), *cells])
    study.add("curves", CAPTION, COLUMNS, rows)
    total = len(SWEEPS)
    return Answer(
        "Which published scaling curves survive an interval?",
        "2 of 6 of click AUC, one of them falling; 3 of 6 of the mean AUC",
        f"{clear[CLICK]} of {total} of click AUC, {falling} of them falling; {clear[MEAN]} of "
        f"{total} of the mean AUC",
        (clear[CLICK], falling, clear[MEAN]) == (2, 1, 3),
        draw(tables, resamples),
    )


def sweep(scaling: pl.DataFrame, model: str, axis: str) -> pl.DataFrame:
    """Return the runs of a published curve that have FLOPs.

    The curve of RankMixer's depth begins at the run of width 256, which has two layers.
    """
    runs = scaling.filter(pl.col("model") == model, pl.col("train_flops").is_not_null())
    chosen = pl.col("axis") == axis
    if axis == "depth" and model == "RankMixer":
        chosen |= (pl.col("axis") == "width") & (pl.col("token_dim") == 256)
    return runs.filter(chosen)


def fit(runs: pl.DataFrame, metric: str, resamples: int) -> Law:
    return fit_line(
        runs["train_flops"].to_numpy(), runs[metric].to_numpy(), resamples=resamples, seed=SEED
    )


def draw(tables: Tables, resamples: int) -> Figure:
    """Draw the curves of two AUCs with the band of the line and what seeds move."""
    with figure(8.6, 5.4) as drawing:
        panels = drawing.subplots(2, 3, sharey=True)
        for axes, (model, axis) in zip(panels.ravel(), SWEEPS):
            runs = sweep(tables["unirank_scaling"], model, axis)
            axes.axhspan(-SEEDS_AUC, SEEDS_AUC, color=GREY, alpha=0.3, lw=0)
            for metric, color in ((CLICK, BLUE), (MEAN, ORANGE)):
                _curve(axes, runs, metric, color, resamples)
            axes.set_title(f"{model}, {axis}", fontsize=11)
            axes.set_ylim(-0.015, 0.015)
        for row in panels:
            row[0].set_ylabel("change of test AUC")
        for axes in panels[1]:
            axes.set_xlabel("training FLOPs")
        legend(drawing, panels[0][0])
        return drawing


def _curve(axes: Axes, runs: pl.DataFrame, metric: str, color: str, resamples: int) -> None:
    """Draw runs relative to their mean, their line, and its band where it has one."""
    centred = runs.with_columns(pl.col(metric) - pl.col(metric).mean())
    c = runs["train_flops"].to_numpy()
    axes.plot(c, centred[metric], "o", color=color, ms=5, label=METRICS[metric])
    compute_axis(axes, c, "")
    grid = np.geomspace(c.min(), c.max(), 50)
    band(axes, grid, fit(centred, metric, resamples).predict(grid), color)
