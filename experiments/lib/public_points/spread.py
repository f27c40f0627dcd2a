"""Is a model's spread smaller than the differences between models? UniRank: test AUC."""

from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from lib.public_points.drawing import figure
from lib.public_points.points import SEED, Answer, Tables, percentiles
from lib.results import Cell, Column, Study, interval
from ligr_jax.scaling.fit import CONFIDENCE
from ligr_jax.scaling.report.style import BLUE, ORANGE

TASKS = ("is_click", "long_view", "is_like", "is_follow", "is_comment", "is_forward")
COLUMNS = [
    Column("action"),
    Column("runs of OneTrans", "d"),
    Column("their range", ".4f"),
    Column("range of as many runs as architectures", ".4f"),
    Column("architectures", "d"),
    Column("their range", ".4f"),
    Column("ratio of standard deviations", ".2f"),
]
CAPTION = (
    "UniRank on KuaiRand-27K, test AUC: all runs of OneTrans, whatever their settings, and one run "
    "of each architecture. The range of a subset is the mean over subsets with the range of 90 % "
    "of them; the ratio has a 90 % interval by F, which assumes normal values."
)
Values = NDArray[np.float64]


def answer(study: Study, tables: Tables, resamples: int) -> Answer:
    """Add the spread of test AUC over the runs of one architecture, and over architectures."""
    rows: list[list[Cell]] = []
    for task in TASKS:
        one, between = of_task(tables["unirank_metrics"], task)
        subset = range_of_subsets(one, len(between), max(resamples, 1))
        ranges: list[Any] = [float(np.ptp(x)) for x in (one, between)]
        rows.append(
            [task, len(one), ranges[0], subset, len(between), ranges[1], ratio(one, between)]
        )
    study.add("spread", CAPTION, COLUMNS, rows)
    click = rows[0]
    larger = sum(row[2] > row[5] for row in rows)
    clear = sum(row[6]["low"] > 1 for row in rows)
    return Answer(
        "Is a model's spread smaller than the differences between models?",
        "no: .040 of click AUC within OneTrans, .032 between 15 architectures",
        f"{click[2]:.3f} within OneTrans, {click[5]:.3f} between {click[4]} architectures; larger "
        f"within on {larger} of {len(rows)} actions, and by more than chance on {clear}",
        bool(click[2] > click[5]),
        draw(tables["unirank_metrics"]),
    )


def of_task(metrics: pl.DataFrame, task: str) -> tuple[Values, Values]:
    """Return the AUC of the runs of OneTrans, and of one run per architecture."""
    runs = metrics.filter(dataset="KuaiRand_Video", split="test", task=task)
    return (
        runs.filter(model="OneTrans")["auc"].to_numpy(),
        runs.filter(group="main")["auc"].to_numpy(),
    )


def range_of_subsets(values: Values, count: int, draws: int) -> Cell:
    """Return the range of `count` values drawn without replacement: mean and 90 % of subsets."""
    rng = np.random.default_rng(SEED)
    count = min(count, len(values))
    ranges = [np.ptp(rng.choice(values, count, replace=False)) for _ in range(draws)]
    return interval(float(np.mean(ranges)), *percentiles(np.array(ranges)))


def ratio(one: Values, other: Values) -> Cell:
    """Return the ratio of two standard deviations with its interval."""
    value = float(one.std(ddof=1) / other.std(ddof=1))
    f = stats.f(len(one) - 1, len(other) - 1)
    tail = 0.5 * (1 - CONFIDENCE)
    return interval(value, value / np.sqrt(f.ppf(1 - tail)), value / np.sqrt(f.ppf(tail)))


def draw(metrics: pl.DataFrame) -> Figure:
    """Draw the AUC of every run in two strips per action."""
    rng = np.random.default_rng(SEED)
    with figure(9.6, 3.6) as drawing:
        panels = drawing.subplots(1, len(TASKS))
        for axes, task in zip(panels, TASKS):
            for k, (values, color) in enumerate(zip(of_task(metrics, task), (BLUE, ORANGE))):
                x = k + rng.uniform(-0.15, 0.15, len(values))
                axes.plot(x, values, "o", color=color, ms=4, alpha=0.7)
                axes.plot([k - 0.3, k + 0.3], [np.median(values)] * 2, color=color, lw=2)
            axes.set_xlim(-0.6, 1.6)
            axes.set_xticks([0, 1], ["OneTrans", "architectures"], rotation=35, ha="right")
            axes.set_title(task, fontsize=11)
        panels[0].set_ylabel("test AUC (line: median)")
        return drawing
