"""Does the shape of a model matter, given N and D? Gemstones: 22 shapes of language models."""

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from lib.public_points.drawing import band, figure, legend, shades
from lib.public_points.points import SEED, Answer, Tables, fit_or_refusal, parameter
from lib.results import Cell, Column, Study
from ligr_jax.scaling.fit import FORMS, fit_factors, fit_form, fit_power, fit_surface
from ligr_jax.scaling.report.style import BLUE, GREY, INK, compute_axis

SERIES = {"constant_lr": "constant rate", "half_lr": "half the rate", "cooled": "cooled"}
FAMILIES = replace(FORMS["surface"], differ="floor")
BINS = 8  # per decade of compute, each a budget of the frontier
SURFACES = [
    Column("rows"),
    Column("form"),
    Column("marks", "d"),
    Column("shapes", "d"),
    Column("E", ".3f"),
    Column("alpha", ".3f"),
    Column("beta", ".3f"),
    Column("residual, a doubling of width / depth", "+.4f"),
]
FRONTIER = [
    Column("fitted to"),
    Column("points", "d"),
    Column("E", ".3f"),
    Column("alpha", ".3f"),
    Column("loss at 1e22 FLOPs", ".3f"),
]
SURFACES_CAPTION = (
    "Gemstones: E + A N^-alpha + B D^-beta, and the change of its log residuals; 90 % intervals "
    "from resampled shapes."
)
FRONTIER_CAPTION = (
    f"Gemstones, constant rate: E + A C^-alpha, through the best mark of each 1/{BINS} decade of "
    "6 N D and through all marks; 90 % intervals from resampled shapes."
)


def answer(study: Study, tables: Tables, resamples: int) -> Answer:
    """Add the surfaces of each series, the effect of the shape, and the frontier."""
    marks = tables["gemstones"].with_columns(shape=pl.format("{}x{}", "width", "depth"))
    rows: list[list[Cell]] = []
    laws: dict[str, Any] = {}
    effects: dict[str, Any] = {}
    for series, title in SERIES.items():
        part = marks.filter(series=series)
        law = laws[series] = fit_surface(
            part["N"].to_numpy(),
            part["D"].to_numpy(),
            part["loss"].to_numpy(),
            groups=part["shape"].to_list(),
            resamples=resamples,
            seed=SEED,
        )
        effect = effects[series] = shape_effect(part, law, resamples)
        cells = [parameter(law, name) for name in ("E", "alpha", "beta")]
        rows.append(
            [title, "one law", len(part), part["shape"].n_unique(), *cells, parameter(effect, "x")]
        )
    rows.append(families_row(marks, resamples))
    study.add("shapes", SURFACES_CAPTION, SURFACES, rows)
    constant = marks.filter(series="constant_lr")
    frontiers = frontier_laws(constant, resamples)
    study.add("frontier", FRONTIER_CAPTION, FRONTIER, [frontier_row(*f) for f in frontiers.items()])
    law, effect = laws["constant_lr"], effects["constant_lr"]
    low, high = effect.intervals["x"]
    return Answer(
        "Does the shape of a language model matter, given N and D?",
        "yes: alpha .293 and beta .713 at a constant rate, and the loss rises by .0045 of itself "
        "with each doubling of width / depth",
        f"alpha {law.params['alpha']:.3f}, beta {law.params['beta']:.3f}; the loss rises by "
        f"{effect.params['x']:.4f} [{low:.4f}, {high:.4f}] of itself",
        low > 0 and near(law.params["alpha"], 0.293) and near(law.params["beta"], 0.713),
        draw(constant, law, frontiers),
    )


def near(exponent: float, expected: float) -> bool:
    return abs(exponent - expected) < 0.01


def shape_effect(part: pl.DataFrame, law: Any, resamples: int) -> Any:
    """Return the change of the log residual of a surface with a doubling of width / depth."""
    value = law.predict(part["N"].to_numpy(), part["D"].to_numpy())[0]
    return fit_factors(
        {"x": (part["width"] / part["depth"]).to_numpy()},
        np.log(part["loss"].to_numpy() / value),
        groups=part["shape"].to_list(),
        resamples=resamples,
        seed=SEED,
    )


def families_row(marks: pl.DataFrame, resamples: int) -> list[Cell]:
    """Return the row of a law with common exponents and a floor per series."""
    law = fit_or_refusal(
        fit_form,
        FAMILIES,
        {"n": marks["N"].to_numpy(), "d": marks["D"].to_numpy()},
        marks["loss"].to_numpy(),
        family=marks["series"].to_list(),
        groups=marks["shape"].to_list(),
        resamples=resamples,
    )
    floors = [parameter(law, f"E[{series}]") for series in SERIES]
    text = ", ".join(f"{floor['value']:.3f}" for floor in floors if floor)
    exponents = [parameter(law, name) for name in ("alpha", "beta")]
    shapes = marks["shape"].n_unique()
    return ["all three", "a floor per series", len(marks), shapes, text, *exponents, None]


def frontier_laws(part: pl.DataFrame, resamples: int) -> dict[str, Any]:
    """Return the laws in compute through the frontier, and through all marks."""
    budget = 10 ** (np.round(np.log10(part["flops"].to_numpy()) * BINS) / BINS)
    options: dict[str, Any] = {
        "groups": part["shape"].to_list(),
        "resamples": resamples,
        "seed": SEED,
    }
    return {
        "the frontier": fit_power(budget, part["loss"].to_numpy(), frontier=True, **options),
        "all marks": fit_power(budget, part["loss"].to_numpy(), **options),
    }


def frontier_row(title: str, law: Any) -> list[Cell]:
    value, low, high = map(float, law.predict(1e22))
    beyond = {"value": value, "low": low, "high": high}
    return [title, law.points, parameter(law, "E"), parameter(law, "alpha"), beyond]


def draw(part: pl.DataFrame, law: Any, frontiers: dict[str, Any]) -> Figure:
    """Draw the frontier over all marks, and the residuals of the surface against the shape."""
    c, ratio = part["flops"].to_numpy(), (part["width"] / part["depth"]).to_numpy()
    value = law.predict(part["N"].to_numpy(), part["D"].to_numpy())[0]
    with figure(9.6, 4.0) as drawing:
        left, right = drawing.subplots(1, 2)
        left.plot(c, part["loss"], "o", color=GREY, ms=3, alpha=0.6, label="marks of 22 shapes")
        grid = np.geomspace(c.min(), c.max(), 60)
        band(left, grid, frontiers["the frontier"].predict(grid), BLUE, label="law of the frontier")
        compute_axis(left, c, "6 N D, FLOPs")
        left.set_ylabel("validation loss")
        sizes = np.log(part["N"].to_numpy())
        share = (sizes - sizes.min()) / np.ptp(sizes)
        scale = shades(64)
        colors = [scale[round(63 * s)] for s in share]
        right.scatter(ratio, 100 * np.log(part["loss"].to_numpy() / value), s=9, c=colors)
        right.axhline(0, color=INK, lw=0.8)
        compute_axis(right, ratio, "width / depth (darker: larger N)")
        right.set_ylabel("residual of the surface, %")
        legend(drawing, left)
        return drawing
