"""Does the metric decide what to scale? srt: effects of width and of depth on NDCG and loss."""

from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from lib.public_points.drawing import figure, legend, shades
from lib.public_points.points import NEGATIVES, SEED, Answer, Tables, parameter
from lib.results import Cell, Column, Study
from ligr_jax.scaling.fit import fit_factors

FACTORS = ("width", "layers")
METRICS = {"best NDCG@5": "best_valid_ndcg5", "least loss": "best_valid_loss"}
COLUMNS = [
    Column("negatives", "d"),
    Column("metric"),
    Column("runs", "d"),
    Column("a doubling of width", "+.4f"),
    Column("a doubling of depth", "+.4f"),
]
CAPTION = "srt: effects of a doubling, with a level per data size; 90 % intervals."


def answer(study: Study, tables: Tables, resamples: int) -> Answer:
    """Add the effects of a doubling of width and of depth on NDCG and loss."""
    rows: list[list[Cell]] = []
    laws: dict[tuple[int, str], Any] = {}
    for negatives in sorted(tables["srt_runs"]["negatives"].unique()):
        runs = tables["srt_runs"].filter(negatives=negatives)
        for title in METRICS:
            law = laws[negatives, title] = fit(runs, title, resamples)
            rows.append([negatives, title, len(runs), *[parameter(law, f) for f in FACTORS]])
    study.add("factors", CAPTION, COLUMNS, rows)
    helpful = {title: improving(laws[NEGATIVES, title], title) for title in METRICS}
    words = {
        title: " and ".join(names).replace("layers", "depth") or "neither"
        for title, names in helpful.items()
    }
    return Answer(
        "Does the metric decide what to scale?",
        "yes: width and not depth for NDCG, both for the loss",
        f"NDCG@5 improves with {words['best NDCG@5']}, the loss with {words['least loss']}",
        helpful == {"best NDCG@5": ["width"], "least loss": ["width", "layers"]},
        draw(tables, {title: laws[NEGATIVES, title] for title in METRICS}),
    )


def fit(runs: pl.DataFrame, title: str, resamples: int) -> Any:
    return fit_factors(
        {name: runs[name].to_numpy() for name in FACTORS},
        runs[METRICS[title]].to_numpy(),
        family=runs["D"].to_list(),
        resamples=resamples,
        seed=SEED,
    )


def improving(law: Any, title: str) -> list[str]:
    """Return the factors whose growth improves the metric by an interval without zero."""
    sign = -1 if title.endswith("loss") else 1
    return [name for name in FACTORS if min(sign * end for end in law.intervals[name]) > 0]


def draw(tables: Tables, laws: dict[str, Any]) -> Figure:
    """Draw both metrics against width, coloured by depth, minus the level of their data size."""
    runs = tables["srt_runs"].filter(negatives=NEGATIVES)
    depths = sorted(runs["layers"].unique())
    widths = np.array(sorted(runs["width"].unique()))
    with figure(8.6, 3.9) as drawing:
        panels = drawing.subplots(1, 2)
        for axes, (title, metric) in zip(panels, METRICS.items()):
            law = laws[title]
            level = (
                runs["D"]
                .cast(pl.String)
                .replace_strict(
                    {d: law.params[f"level[{d}]"] for d in law.families}, return_dtype=pl.Float64
                )
            )
            centred = runs.with_columns(change=pl.col(metric) - level)
            mean = float(np.mean([law.params[f"level[{d}]"] for d in law.families]))
            for depth, color in zip(depths, shades(len(depths))):
                part = centred.filter(layers=depth)
                name = f"{depth} layer{'s' * (depth > 1)}"
                axes.plot(part["width"], part["change"], "o", color=color, ms=4.5, label=name)
                value = np.mean(
                    [law.predict(widths, depth, family=d)[0] for d in law.families], axis=0
                )
                axes.plot(widths, value - mean, color=color, lw=1.3)
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_locator(FixedLocator(list(widths)))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.set_xlabel("width")
            axes.set_ylabel(f"{title}, level removed")
        legend(drawing, panels[0], columns=len(depths))
        return drawing
