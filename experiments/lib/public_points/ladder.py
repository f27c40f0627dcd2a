"""Can a ladder predict runs far beyond its largest FLOPs? OLMo: two targets, five losses."""

from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from lib.public_points.drawing import band, figure, legend, shades
from lib.public_points.points import SEED, Answer, Tables
from lib.results import Cell, Column, Study, interval
from ligr_jax.scaling.fit import FORMS, fit_form, fit_surface, noise_floor
from ligr_jax.scaling.report.style import INK, RED, compute_axis

LOSSES = ("c4_loss", "pile_loss", "wikitext103_loss", "dolma_books_loss", "dolma_stack_loss")
SURFACE, TIED = "surface", "one exponent"
COLUMNS = [
    Column("loss"),
    Column("form"),
    Column("target"),
    Column("times the largest FLOPs", ".1f"),
    Column("predicted loss", ".4f"),
    Column("observed", ".4f"),
    Column("error", "+.4f"),
    Column("inside"),
]


def answer(study: Study, tables: Tables, resamples: int) -> Answer:
    """Add the losses that the ladder predicts of OLMo's two large models."""
    olmo = tables["olmo_ladder"]
    ladder, targets = olmo.filter(role="ladder"), olmo.filter(role="target").sort("flops")
    laws = {(loss, SURFACE): fit(SURFACE, ladder, loss, resamples) for loss in LOSSES}
    laws[LOSSES[0], TIED] = fit(TIED, ladder, LOSSES[0], resamples)
    rows: list[list[Cell]] = []
    largest = float(ladder["flops"].to_numpy().max())
    for (loss, form), law in laws.items():
        for target in targets.iter_rows(named=True):
            value, low, high = map(float, law.predict(target["N"], target["D"], run_noise=True))
            observed = target[loss]
            rows.append(
                [
                    loss.removesuffix("_loss"),
                    form,
                    f"{target['N'] / 1e9:.1f} B, {target['D'] / 1e12:.1f} T tokens",
                    target["flops"] / largest,
                    interval(value, low, high),
                    observed,
                    value - observed,
                    "yes" if low <= observed <= high else "no",
                ]
            )
    caption = (
        "OLMo: losses of two targets by the surface E + A N^-alpha + B D^-beta, and by the surface "
        f"with one exponent (alpha = beta), from the ladder's {len(ladder)} runs, with 90 % "
        f"intervals of one run. Standard deviation of a rerun, C4: {noise_of(olmo)}."
    )
    study.add("ladder", caption, COLUMNS, rows)
    first = rows[: len(targets)]
    inside = sum(row[7] == "yes" for row in first)
    others = [row[7] for row in rows if row[1] == SURFACE]
    return Answer(
        "Can a ladder predict runs far beyond its largest FLOPs?",
        "yes: both targets inside the interval, errors -.0007 and -.0112",
        f"{inside} of {len(first)} inside, errors {', '.join(f'{row[6]:+.4f}' for row in first)}; "
        f"over five losses {others.count('yes')} of {len(others)} inside",
        inside == len(first) and max(abs(row[6]) for row in first) < 0.012,
        draw(olmo, laws[LOSSES[0], SURFACE]),
    )


def fit(form: str, ladder: pl.DataFrame, loss: str, resamples: int) -> Any:
    n, d, y = (ladder[c].to_numpy() for c in ("N", "D", loss))
    if form == SURFACE:
        return fit_surface(n, d, y, resamples=resamples, seed=SEED)
    return fit_form(FORMS["tied"], {"n": n, "d": d}, y, resamples=resamples, seed=SEED)


def noise_of(olmo: pl.DataFrame) -> str:
    """Return the standard deviation of a rerun, with its interval."""
    reruns = olmo.filter(pl.col("role") != "target", chinchilla_multiple=1)
    sd, low, high = noise_floor(reruns[LOSSES[0]].to_numpy(), reruns["size"].to_list()).pooled
    return f"{sd:.5f} [{low:.5f}, {high:.5f}]"


def draw(olmo: pl.DataFrame, law: Any) -> Figure:
    """Draw C4 loss against FLOPs: the ladder with its law per size, and both targets."""
    ladder, targets = olmo.filter(role="ladder"), olmo.filter(role="target").sort("flops")
    sizes = ladder.sort("N").partition_by("N", maintain_order=True)
    with figure(7.4, 4.6) as drawing:
        axes = drawing.subplots()
        for part, color in zip(sizes, shades(len(sizes))):
            n, c = part["N"][0], part["flops"].to_numpy()
            grid = np.geomspace(c.min(), c.max(), 40)
            name = f"{n / 1e6:.0f} M parameters"
            axes.plot(c, part["c4_loss"], "o", color=color, ms=5, label=name)
            # Forward and backward FLOPs per token do not depend on the number of tokens.
            band(axes, grid, law.predict(n, grid * part["D"][0] / c[0]), color)
        value, low, high = law.predict(
            targets["N"].to_numpy(), targets["D"].to_numpy(), run_noise=True
        )
        x = targets["flops"].to_numpy()
        axes.errorbar(
            x, value, (value - low, high - value), fmt="s", color=INK, mfc="none", ms=9, capsize=4,
            label="predicted",
        )  # fmt: skip
        axes.plot(x, targets["c4_loss"], "X", color=RED, ms=6, mec="none", label="observed")
        axes.set_ylabel("C4 loss")
        compute_axis(axes, olmo["flops"].to_numpy(), "training FLOPs")
        legend(drawing, axes, columns=3)
        return drawing
