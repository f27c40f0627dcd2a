"""Does compute explain AUC across architectures? Tables of the OneTrans and HyFormer papers."""

from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.public_points.drawing import band, figure
from lib.public_points.points import SEED, Answer, Tables, is_clear, parameter
from lib.results import Cell, Column, Study
from ligr_jax.scaling.fit import Law, fit_line
from ligr_jax.scaling.report.style import BLUE, GREY, compute_axis

COLUMNS = [
    Column("table"),
    Column("models", "d"),
    Column("AUC, a decade of TFLOPs", "+.5f"),
]
CAPTION = (
    "AUC of different architectures against the TFLOPs that the papers give; 90 % intervals. "
    "Private data, no seeds. The changes of OneTrans are read as relative to its base."
)
ALL, TWO_STAGES, HYFORMER = (
    "OneTrans, table 2",
    "OneTrans, table 2, without unified models",
    "HyFormer, table 1",
)


def answer(study: Study, tables: Tables, resamples: int) -> Answer:
    """Add the slopes of AUC in TFLOPs over the models of both papers."""
    parts = models(tables)
    laws = {title: fit(part, resamples) for title, part in parts.items()}
    rows: list[list[Cell]] = [
        [title, len(part), parameter(laws[title], "slope")] for title, part in parts.items()
    ]
    study.add("designs", CAPTION, COLUMNS, rows)
    clear = {title: is_clear(law.intervals["slope"]) for title, law in laws.items()}
    found = {True: "a slope above 0", False: "no slope"}
    return Answer(
        "Does compute explain AUC across architectures?",
        "in OneTrans' table, with and without its unified models; not in HyFormer's",
        "; ".join(
            f"{title}: {found[clear[title]]} ({law.params['slope']:+.4f})"
            for title, law in laws.items()
        ),
        clear == {ALL: True, TWO_STAGES: True, HYFORMER: False},
        draw(parts, laws),
    )


def models(tables: Tables) -> dict[str, pl.DataFrame]:
    """Return name, TFLOPs and AUC of the models of each table."""
    change = 1 + pl.col("ctr_auc_delta_pct") / 100
    onetrans = tables["onetrans"].filter(table="table 2")
    onetrans = onetrans.with_columns(
        auc=pl.col("ctr_auc_base") * change, tflops="tflops_batch_2048"
    )
    return {
        ALL: onetrans,
        TWO_STAGES: onetrans.filter(pl.col("type") != "unified"),
        HYFORMER: tables["hyformer"].filter(table="table 1"),
    }


def fit(part: pl.DataFrame, resamples: int) -> Law:
    # TFLOPs as they are: a line in log10 has the same slope in any unit.
    return fit_line(
        part["tflops"].to_numpy(), part["auc"].to_numpy(), resamples=resamples, seed=SEED
    )


def draw(parts: dict[str, pl.DataFrame], laws: dict[str, Any]) -> Figure:
    """Draw the models of both tables with their names, the line and its band."""
    with figure(10.8, 4.2) as drawing:
        for axes, title in zip(drawing.subplots(1, 2), (ALL, HYFORMER)):
            part = parts[title].sort("auc")
            c = part["tflops"].to_numpy()
            grid = np.geomspace(c.min(), c.max(), 40)
            band(axes, grid, laws[title].predict(grid), BLUE)
            axes.plot(c, part["auc"], "o", color=BLUE, ms=5)
            compute_axis(axes, c, "TFLOPs, as published")
            axes.set_ylabel("CTR AUC" if title == ALL else "AUC")
            axes.set_title(title, fontsize=11)
            _names(axes, part)
        return drawing


def _names(axes: Axes, part: pl.DataFrame) -> None:
    """Write the name of each model right of the panel, joined to its point by a line."""
    for row, height in zip(part.iter_rows(named=True), np.linspace(0.04, 0.96, len(part))):
        axes.annotate(
            ", ".join(filter(None, (row["model"], row.get("feature_interaction")))),
            (row["tflops"], row["auc"]),
            (1.03, height),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.6},
        )
