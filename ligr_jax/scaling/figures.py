"""Figures of a sweep: PNG for a README, SVG that takes its ink from the page it stands in.

Small (5.4 in wide, 11 point) so that they stay legible on a phone. Colours are Okabe and Ito's,
told apart by every common kind of colour vision; no state of pyplot is touched.
"""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from ligr_jax.scaling.fit import Law

AXES = {
    "flops_model": "training FLOPs, counted (flops_model)",
    "flops_paper": "dense parameters × tokens (flops_paper)",
    "flops_6nd": "6 × dense parameters × tokens (flops_6nd)",
}
BLUE, ORANGE, GREEN, RED = "#0072b2", "#e69f00", "#009e73", "#d55e00"
INK = "#000000"
STYLE: dict[Any, Any] = {
    "font.size": 11,
    "axes.labelsize": 11,
    "legend.fontsize": 10,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "figure.constrained_layout.use": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "ligr_jax",
}
Array = NDArray[np.float64]


def metric_against_compute(
    compute: Array,
    metric: Array,
    *,
    axis: str,
    label: str,
    law: Law | None = None,
    oracle: float | None = None,
    shapes: Sequence[str] = (),
) -> Figure:
    """Runs, law with band, oracle's line; below, residuals in percent. shapes: a label per run."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 4.7 if law else 3.8))
        rows = (3.2, 1) if law else (1,)
        panels = figure.subplots(len(rows), sharex=True, height_ratios=rows, squeeze=False)[:, 0]
        main: Axes = panels[0]
        if law:
            x = np.geomspace(compute.min(), compute.max(), 120)
            value, low, high = law.predict(x)
            band = f"{law.confidence:.0%} interval"
            main.fill_between(x, low, high, color=BLUE, alpha=0.18, lw=0, label=band)
            main.plot(x, value, color=BLUE, lw=1.8, label=f"{law.form} law")
            _residual_panel(panels[1], compute, metric, law)
        main.plot(compute, metric, "o", color=INK, ms=5, mec="none", alpha=0.85, label="run")
        _oracle_line(main, metric, oracle)
        main.set_ylabel(label)
        _compute_axis(panels[-1], compute, axis)
        main.yaxis.set_major_locator(MaxNLocator(5))
        main.margins(y=0.18)
        _annotate_ends(main, compute, metric, shapes)
        figure.legend(loc="outside upper center", ncols=4, frameon=False, columnspacing=1.4)
        return figure


def actions_against_compute(
    compute: Array,
    metrics: Mapping[str, Array],
    laws: Mapping[str, Law],
    *,
    axis: str,
    label: str = "AUC",
) -> Figure:
    """One series per action (three at most) with its line and band."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 3.8))
        main: Axes = figure.subplots()
        for (action, y), color, mark in zip(metrics.items(), (BLUE, ORANGE, GREEN), "os^"):
            main.plot(compute, y, mark, color=color, ms=5, mec="none", label=action)
            if action in laws:
                x = np.geomspace(compute.min(), compute.max(), 60)
                value, low, high = laws[action].predict(x)
                main.plot(x, value, color=color, lw=1.6)
                main.fill_between(x, low, high, color=color, alpha=0.18, lw=0)
        main.set_ylabel(label)
        main.yaxis.set_major_locator(MaxNLocator(5))
        _compute_axis(main, compute, axis)
        figure.legend(loc="outside upper center", ncols=3, frameon=False)
        return figure


def training_curves(curves: Sequence[tuple[Array, Array]], *, axis: str, label: str) -> Figure:
    """Training loss of every run against the compute spent; darker lines are larger runs.

    The first 2 % of each curve, the fall from the initial values, would take all the height.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 3.8))
        main: Axes = figure.subplots()
        settled = [(x[len(x) // 50 :], _smooth(y)[len(y) // 50 :]) for x, y in curves]
        ordered = sorted(settled, key=lambda curve: curve[0][-1])
        for i, (x, y) in enumerate(ordered):
            shade = 0.3 + 0.7 * (i + 1) / len(ordered)
            main.plot(x, y, color=BLUE, alpha=shade, lw=1.3)
        main.set_ylabel(label)
        main.yaxis.set_major_locator(MaxNLocator(5))
        _compute_axis(main, np.concatenate([x for x, _ in ordered]), axis)
        return figure


def save_png(figure: Figure, path: Path) -> None:
    """Writes a PNG at twice the screen's density, on white, whole or not at all."""
    part = path.with_name(path.name + ".part")
    with mpl.rc_context(STYLE):
        figure.savefig(part, format="png", dpi=200, facecolor="white")
    part.replace(path)


def svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an inline <svg>: text as text, black as the page's ink, ids prefixed by `name`.

    Colours become `var(--c-0072b2, #0072b2)`, so a dark page may lighten them.
    """
    buffer = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r"#000000|(?<=fill: )black", "currentColor", text)
    for color in (BLUE, ORANGE, GREEN, RED):
        text = text.replace(color, f"var(--c-{color[1:]}, {color})")
    size = re.search(r'viewBox="[^"]*"', text)
    head = (
        f'<svg {size[0] if size else ""} fill="currentColor" role="img" aria-label="{description}">'
    )
    return head + text[text.index(">") + 1 :]


def _residual_panel(panel: Axes, compute: Array, metric: Array, law: Law) -> None:
    percent = 100.0 * (metric / law.predict(compute)[0] - 1.0)
    panel.axhline(0, color=BLUE, lw=1)
    panel.plot(compute, percent, "o", color=INK, ms=3.5, mec="none", alpha=0.85)
    reach = 1.25 * max(float(np.abs(percent).max()), 1e-3)
    panel.set_ylim(-reach, reach)
    panel.set_ylabel("residual, %", fontsize=10)
    panel.yaxis.set_major_locator(MaxNLocator(3, symmetric=True))


def _oracle_line(main: Axes, metric: Array, oracle: float | None) -> None:
    """Draws the oracle unless it lies so far off that it would flatten the runs to a line."""
    if oracle is None:
        return
    far = abs(float(metric.min()) - oracle) > 3.0 * float(np.ptp(metric))
    if far and len(metric) > 1:
        main.plot([], [], " ", label=f"oracle {oracle:.4f} (off scale)")
    else:
        main.axhline(oracle, color=RED, lw=1.4, ls=(0, (5, 3)), label=f"oracle {oracle:.4f}")


def _annotate_ends(main: Axes, compute: Array, metric: Array, shapes: Sequence[str]) -> None:
    """Names the smallest and the largest run, where the words cover least of what is drawn."""
    if not len(shapes) or len(compute) < 2:
        return
    span = np.geomspace(*main.get_xlim(), 200)
    lines = [(np.asarray(n.get_xdata()), np.asarray(n.get_ydata())) for n in main.get_lines()]
    ink = [(x, y) if len(x) > 2 else (span, np.full(200, y[-1])) for x, y in lines if len(x)]
    to_axes = main.transData + main.transAxes.inverted()
    drawn = to_axes.transform(np.concatenate([np.stack(pair, 1) for pair in ink]))
    for i, side in ((int(np.argmin(compute)), 1), (int(np.argmax(compute)), -1)):
        x, y = to_axes.transform((float(compute[i]), float(metric[i])))
        x += 0.02 * side
        width = 0.028 * len(shapes[i])
        heights = [y + side * r for r in (0.07, 0.1, -0.09, 0.14, 0.19, -0.14, 0.25)]
        across = np.abs(drawn[:, 0] - x - side * width / 2) < width / 2
        covered = [int((across & (np.abs(drawn[:, 1] - h) < 0.05)).sum()) for h in heights]
        covered = [c if 0.04 < h < 0.96 else 10**6 for c, h in zip(covered, heights)]
        h = heights[int(np.argmin(covered))]
        ha = "left" if side > 0 else "right"
        main.text(x, h, shapes[i], transform=main.transAxes, ha=ha, va="center", fontsize=10)


def _compute_axis(main: Axes, compute: Array, axis: str) -> None:
    """Decades as 10¹², with at most six labels and minor ticks only where decades are few."""
    main.set_xscale("log")
    low, high = np.log10(compute.min()), np.log10(compute.max())
    pad = 0.04 * max(high - low, 0.5)
    main.set_xlim(10 ** (low - pad), 10 ** (high + pad))
    decades = np.arange(np.ceil(low - pad), np.floor(high + pad) + 1)
    if len(decades) >= 2:
        ticks = 10.0 ** decades[:: int(np.ceil(len(decades) / 6))]
    else:
        ticks = np.geomspace(compute.min(), compute.max(), 2 if high > low else 1)
    main.xaxis.set_major_locator(FixedLocator(list(ticks)))
    main.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _power_of_ten(value)))
    few = 2 <= len(decades) <= 4
    minor = [m * 10.0**d for d in (decades[0] - 1, *decades) for m in range(2, 10)] if few else []
    main.xaxis.set_minor_locator(FixedLocator(minor) if minor else NullLocator())
    main.set_xlabel(AXES.get(axis, axis))


def _power_of_ten(value: float) -> str:
    power = int(np.floor(np.log10(value) + 1e-9))
    lead = value / 10.0**power
    raised = str(power).translate(str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"))
    return f"10{raised}" if abs(lead - 1) < 1e-6 else f"{lead:.1f}×10{raised}"


def _smooth(y: Array) -> Array:
    """Running mean over about 4 % of the curve, shorter at its ends."""
    half = max(1, len(y) // 50)
    total = np.concatenate([[0.0], np.cumsum(y)])
    at = np.arange(len(y))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(y))
    return (total[high] - total[low]) / (high - low)
