"""Does the epoch that one reads decide the law? srt: loss and NDCG against N at fixed data."""

from matplotlib.figure import Figure

from lib.public_points.drawing import figure, legend
from lib.public_points.points import (
    NEGATIVES,
    SEED,
    Answer,
    Tables,
    by_size,
    fit_or_refusal,
    parameter,
)
from lib.results import Cell, Column, Study
from ligr_jax.scaling.fit import fit_line, fit_power
from ligr_jax.scaling.report.style import BLUE, ORANGE, compute_axis

COLUMNS = [
    Column("negatives", "d"),
    Column("training targets", ",d"),
    Column("runs", "d"),
    Column("last loss, a decade of N", "+.3f"),
    Column("least loss, a decade of N", "+.3f"),
    Column("alpha of least loss", ".3f"),
    Column("last NDCG@5, a decade of N", "+.4f"),
]
METRICS = ("last_valid_loss", "best_valid_loss", "last_valid_ndcg5")
CAPTION = (
    "srt: validation loss and NDCG@5 against N at fixed data. Lines in log10 N, and alpha of "
    "E + A N^-alpha; 90 % intervals."
)


def answer(study: Study, tables: Tables, resamples: int) -> Answer:
    """Add the change of loss and NDCG with N at each data size, at the last and the best mark."""
    rows: list[list[Cell]] = []
    inverted = refused = falls = sinks = 0
    for negatives in sorted(tables["srt_runs"]["negatives"].unique()):
        for part in by_size(tables["srt_runs"], negatives):
            n = part["N"].to_numpy()
            lines = [
                fit_line(n, part[m].to_numpy(), resamples=resamples, seed=SEED) for m in METRICS
            ]
            power = [
                fit_or_refusal(fit_power, n, part[m].to_numpy(), resamples=resamples)
                for m in METRICS[:2]
            ]
            slopes = [parameter(line, "slope") for line in lines]
            alpha = parameter(power[1], "alpha")
            rows.append([negatives, part["D"][0], len(part), *slopes[:2], alpha, slopes[2]])
            if negatives == NEGATIVES:
                last, best, ndcg = (line.intervals["slope"] for line in lines)
                inverted += last[0] > 0
                refused += isinstance(power[0], str)
                falls += best[1] < 0
                sinks += ndcg[1] < 0
    study.add("marks", CAPTION, COLUMNS, rows)
    total = len(by_size(tables["srt_runs"]))
    return Answer(
        "Does the epoch that one reads decide the law?",
        "yes: the last epoch inverts the law in loss on 3 of 5 data sizes, NDCG never inverts",
        f"the last loss rises with N on {inverted} of {total} data sizes, and the power law is "
        f"refused on {refused}; the least loss falls on {falls}; NDCG@5 falls on {sinks}",
        inverted == 3 and falls == total and sinks == 0,
        draw(tables),
    )


def draw(tables: Tables) -> Figure:
    """Draw loss and NDCG against N at each data size, at the last mark and at the best."""
    parts = by_size(tables["srt_runs"])
    rows = {
        "validation loss": ("last_valid_loss", "best_valid_loss"),
        "NDCG@5": ("last_valid_ndcg5", "best_valid_ndcg5"),
    }
    with figure(2.0 * len(parts), 4.6) as drawing:
        panels = drawing.subplots(2, len(parts), sharex=True, sharey="row", squeeze=False)
        for row, (label, metrics) in zip(panels, rows.items()):
            for axes, part in zip(row, parts):
                for metric, name, color, mark in zip(
                    metrics, ("last epoch", "best epoch"), (ORANGE, BLUE), "so"
                ):
                    axes.plot(part["N"], part[metric], mark, color=color, ms=5, label=name)
                compute_axis(axes, tables["srt_runs"]["N"].to_numpy(), "")
            row[0].set_ylabel(label)
        for axes, part in zip(panels[0], parts):
            axes.set_title(f"{part['D'][0] / 1e6:.2g} M targets", fontsize=11)
        for axes in panels[1]:
            axes.set_xlabel("parameters N")
        legend(drawing, panels[0][0])
        return drawing
