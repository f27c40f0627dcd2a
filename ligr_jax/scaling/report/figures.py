"""Figures of a report, drawn from plain arrays. Points of runs carry the number of their run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ligr_jax.scaling.report.style import (
    BLUE,
    GREY,
    INK,
    RED,
    Array,
    compute_axis,
    dots,
    look,
    power_of_ten,
    styled,
    value_axis,
)

WIDTH = 5.4  # inches
Predict = Callable[[Array], tuple[Array, Array, Array]]  # compute -> value, low, high


@dataclass(frozen=True)
class Series:
    """Points of runs with one name in the legend.

    Attributes:
        name: text in the legend.
        x: horizontal coordinate of each run, usually compute.
        y: vertical coordinate of each run, usually the metric.
        runs: row numbers of the runs.
        predict: `predict` of a law fitted to the runs; None: no law is drawn.
        order: a value per run; a line joins the means at each value, in order of the value.
    """

    name: str
    x: Array
    y: Array
    runs: Sequence[int]
    predict: Predict | None = None
    order: Array | None = None


def against_compute(
    series: Sequence[Series],
    *,
    axis: str,
    label: str,
    reference: tuple[str, float] | None = None,
    band: str = "interval",
) -> Figure:
    """Draw runs against compute with their laws and bands, and residuals in percent below.

    Args:
        series: the runs.
        axis: label of the compute axis.
        label: label of the metric axis.
        reference: name and height of a horizontal line.
        band: text of the bands in the legend.
    """
    fitted = any(s.predict for s in series)
    with styled():
        figure = Figure(figsize=(WIDTH, 5.0 if fitted else 4.0))
        rows = (3.2, 1) if fitted else (1,)
        panels = figure.subplots(len(rows), sharex=True, height_ratios=rows, squeeze=False)[:, 0]
        main: Axes = panels[0]
        for i, s in enumerate(series):
            style = look(i)
            if s.predict:
                x = np.geomspace(s.x.min(), s.x.max(), 60)
                value, low, high = s.predict(x)
                main.fill_between(x, low, high, color=style.color, alpha=0.18, lw=0)
                main.plot(x, value, color=style.color, lw=1.8, ls=style.stroke)
                percent = 100.0 * (s.y / s.predict(s.x)[0] - 1.0)
                dots(panels[1], s.x, percent, s.runs, marker=style.mark, color=style.color, ms=4)
            elif s.order is not None:
                masks = [s.order == v for v in np.unique(s.order)]
                mean_x = [s.x[mask].mean() for mask in masks]
                mean_y = [s.y[mask].mean() for mask in masks]
                main.plot(mean_x, mean_y, color=style.color, lw=1.6, ls=style.stroke)
            dots(main, s.x, s.y, s.runs, marker=style.mark, color=style.color)
            main.plot([], [], color=style.color, marker=style.mark, ls=style.stroke, label=s.name)
        if reference:
            _reference(main, np.concatenate([s.y for s in series]), *reference)
        value_axis(main, label)
        _limit(main, series, reference)
        if fitted:
            panels[1].axhline(0, color=INK, lw=0.8)
            panels[1].set_ylabel("residual, %", fontsize=10)
            panels[1].yaxis.set_major_locator(MaxNLocator(3, symmetric=True))
            panels[1].margins(y=0.2)
            main.fill_between([], [], [], color=GREY, alpha=0.3, lw=0, label=band)
        compute_axis(panels[-1], np.concatenate([s.x for s in series]), axis)
        draw_legend(figure)
        return figure


def iso_flop(series: Sequence[Series], curves: Sequence[Any], *, label: str) -> Figure:
    """Draw the metric against size at each budget, with the parabolas and their minima.

    Args:
        series: runs of each budget.
        curves: fitted `Budget` of each series.
        label: label of the metric axis.
    """
    with styled():
        figure = Figure(figsize=(WIDTH, 4.2))
        main: Axes = figure.subplots()
        for i, (s, fit) in enumerate(zip(series, curves)):
            style = look(i)
            x = np.geomspace(s.x.min(), s.x.max(), 80)
            main.plot(x, np.polyval(fit.curve[::-1], np.log10(x)), color=style.color, lw=1.4)
            dots(main, s.x, s.y, s.runs, marker=style.mark, color=style.color)
            main.plot([], [], color=style.color, marker=style.mark, label=s.name)
            if not fit.at_edge:
                main.plot(fit.optimum, fit.metric, "*", color=INK, ms=11, mec="none", zorder=4)
        main.plot([], [], "*", color=INK, ms=11, mec="none", label="minimum")
        value_axis(main, label)
        compute_axis(main, np.concatenate([s.x for s in series]), "dense parameters")
        draw_legend(figure)
        return figure


def optima(budgets: Sequence[Any], predict: Predict, *, axis: str) -> Figure:
    """Draw the best size of each budget with its interval, and the power law."""
    with styled():
        figure = Figure(figsize=(WIDTH, 3.8))
        main: Axes = figure.subplots()
        inner = [b for b in budgets if not b.at_edge]
        compute = np.array([b.compute for b in budgets])
        x = np.geomspace(compute.min(), compute.max(), 60)
        value, low, high = predict(x)
        main.fill_between(x, low, high, color=BLUE, alpha=0.18, lw=0)
        main.plot(x, value, color=BLUE, lw=1.8, label="power law")
        for b in inner:
            main.plot([b.compute] * 2, [b.low, b.high], color=INK, lw=1.2)
        main.plot([b.compute for b in inner], [b.optimum for b in inner], "*", color=INK, ms=11)
        edge = [b for b in budgets if b.at_edge]
        if edge:
            main.plot(
                [b.compute for b in edge], [b.optimum for b in edge], "x", color=RED, ms=8,
                label="minimum at the edge of the sizes tried, not fitted",
            )  # fmt: skip
            draw_legend(figure)
        _log_value_axis(main, "dense parameters at the minimum")
        compute_axis(main, compute, axis)
        return figure


def frontier(
    everything: Series, best: Series, names: Sequence[str], *, axis: str, label: str
) -> Figure:
    """Draw all runs, and in colour the frontier, whose first and last runs show their shape."""
    with styled():
        figure = Figure(figsize=(WIDTH, 4.0))
        main: Axes = figure.subplots()
        dots(main, everything.x, everything.y, everything.runs, marker="o", color=GREY, ms=4.5)
        # The last step extends to the largest compute.
        step_x = np.append(best.x, everything.x.max())
        step_y = np.append(best.y, best.y[-1])
        main.step(step_x, step_y, where="post", color=BLUE, lw=1.4)
        dots(main, best.x, best.y, best.runs, marker="s", color=BLUE, ms=6.5)
        main.plot([], [], "s-", color=BLUE, label="best so far")
        main.plot([], [], "o", color=GREY, ms=4.5, label="other runs")
        value_axis(main, label)
        # Runs far above the frontier would flatten it: they are counted and not drawn.
        low, high = float(best.y.min()), float(best.y.max())
        height = (high - low) or abs(high)
        top = min(float(everything.y.max()) + 0.15 * height, high + 0.6 * height)
        main.set_ylim(low - 0.2 * height, top)
        above = int((everything.y > top).sum())
        if above:
            main.plot([], [], " ", label=f"{above} above the panel")
        compute_axis(main, everything.x, axis)
        for i, ha, shift in ((0, "left", 6), (len(names) - 1, "right", -6)):
            point = (float(best.x[i]), float(best.y[i]))
            side = "bottom" if i == 0 else "top"
            main.annotate(
                names[i], point, (shift, 5 if i == 0 else -7), textcoords="offset points", ha=ha,
                va=side, fontsize=10,
            )  # fmt: skip
        draw_legend(figure)
        return figure


def training_curves(
    curves: Sequence[tuple[int, Array, Array]], names: Sequence[str], *, axis: str, label: str
) -> Figure:
    """Draw the training loss of every run against compute; darker lines are larger runs.

    The first 2 % of each curve are not drawn: the initial decrease would take all the height.

    Args:
        curves: (index in names, compute, loss) of each run.
        names: texts in the legend.
        axis: label of the compute axis.
        label: label of the loss axis.
    """
    with styled():
        figure = Figure(figsize=(WIDTH, 4.0))
        main: Axes = figure.subplots()
        settled = [(i, x[len(x) // 50 :], _smooth(y)[len(y) // 50 :]) for i, x, y in curves]
        ordered = sorted(settled, key=lambda curve: curve[1][-1])
        for rank, (i, x, y) in enumerate(ordered):
            thinned = np.unique(np.linspace(0, len(x) - 1, 150).astype(int))
            shade = 0.3 + 0.7 * (rank + 1) / len(ordered)
            style = look(i)
            main.plot(
                x[thinned], y[thinned], color=style.color, ls=style.stroke, alpha=shade, lw=1.2
            )
        if len(names) > 1:
            for i, name in enumerate(names):
                main.plot([], [], color=look(i).color, ls=look(i).stroke, label=name)
            draw_legend(figure)
        value_axis(main, label)
        compute_axis(main, np.concatenate([x for _, x, _ in ordered]), axis)
        return figure


def seed_scatter(series: Series, detectable: Sequence[tuple[int, float]], *, axis: str) -> Figure:
    """Draw each run's deviation from the mean of its seeds; lines: detectable differences.

    Args:
        series: runs; y is the deviation.
        detectable: (seeds, smallest detectable difference) of each pair of lines.
        axis: label of the compute axis.
    """
    with styled():
        figure = Figure(figsize=(WIDTH, 3.8))
        main: Axes = figure.subplots()
        main.axhline(0, color=INK, lw=0.8)
        for i, (seeds, least) in enumerate(detectable):
            style = look(i + 1)
            for sign in (1, -1):
                main.axhline(sign * least, color=style.color, ls=style.stroke, lw=1.3)
            plural = "seed" if seeds == 1 else "seeds"
            main.plot([], [], color=style.color, ls=style.stroke, label=f"{seeds} {plural} each")
        dots(main, series.x, series.y, series.runs, marker="o", color=BLUE)
        value_axis(main, series.name)
        main.margins(y=0.1)
        compute_axis(main, series.x, axis)
        draw_legend(figure)
        return figure


@dataclass(frozen=True)
class IntervalRow:
    """A row of an interval plot: an estimate, its interval, and the observed value if known."""

    name: str
    value: float
    low: float
    high: float
    observed: float | None = None
    run: int | None = None


def spans(rows: Sequence[IntervalRow], *, label: str, zero: bool = False) -> Figure:
    """Draw estimates with intervals, one per row; crosses are observed values.

    Args:
        rows: the estimates.
        label: label of the axis.
        zero: draw a line at zero.
    """
    with styled():
        figure = Figure(figsize=(WIDTH, 1.3 + 0.34 * len(rows)))
        main: Axes = figure.subplots()
        heights = np.arange(len(rows))[::-1]
        for y, row in zip(heights, rows):
            main.plot([row.low, row.high], [y, y], color=BLUE, lw=2.4, alpha=0.6)
        main.plot(
            [r.value for r in rows], heights, "o", color=BLUE, ms=6, label="estimate, interval"
        )
        observed = [(r.observed, y, r.run) for y, r in zip(heights, rows) if r.observed is not None]
        if observed:
            x, y, runs = zip(*observed)
            numbers = [n for n in runs if n is not None]
            style: dict[str, Any] = {"marker": "X", "color": RED, "ms": 7.5}
            if len(numbers) == len(observed):
                dots(main, np.array(x), np.array(y), numbers, **style)
            else:
                main.plot(x, y, ls="none", **style)
            main.plot([], [], ls="none", **style, label="observed")
            draw_legend(figure)
        if zero:
            main.axvline(0, color=INK, lw=0.8)
        main.set_yticks(heights, [r.name for r in rows])
        main.set_ylim(-0.7, len(rows) - 0.3)
        main.spines["left"].set_visible(False)
        main.tick_params(axis="y", length=0)
        main.xaxis.set_major_locator(MaxNLocator(5))
        main.set_xlabel(label)
        return figure


def estimated_time(series: Sequence[Series]) -> Figure:
    """Draw actual seconds (y) against estimated seconds (x) of runs on logarithmic axes."""
    with styled():
        figure = Figure(figsize=(WIDTH, 4.0))
        main: Axes = figure.subplots()
        both = np.concatenate([np.concatenate([s.x, s.y]) for s in series])
        ends = np.array([both.min() / 1.2, both.max() * 1.2])
        main.plot(ends, ends, color=INK, lw=0.9, ls=(0, (5, 3)), label="actual = estimated")
        for i, s in enumerate(series):
            style = look(i)
            dots(main, s.x, s.y, s.runs, marker=style.mark, color=style.color)
            main.plot([], [], style.mark, color=style.color, label=s.name)
        _log_value_axis(main, "actual, seconds")
        compute_axis(main, ends, "estimated, seconds")
        draw_legend(figure)
        return figure


def _limit(main: Axes, series: Sequence[Series], reference: tuple[str, float] | None) -> None:
    """Fit the vertical axis to runs, laws and a reference that is drawn; bands may exceed it."""
    y = np.concatenate([s.y for s in series])
    shown = [y, *(s.predict(s.x)[0] for s in series if s.predict)]
    if reference and not _is_off_scale(y, reference[1]):
        shown.append(np.array([reference[1]]))
    every = np.concatenate(shown)
    margin = 0.12 * (float(np.ptp(every)) or abs(float(every[0])))
    main.set_ylim(every.min() - margin, every.max() + margin)


def _log_value_axis(main: Axes, label: str) -> None:
    """Make the vertical axis logarithmic, with labels at decades only."""
    main.set_yscale("log")
    main.yaxis.set_major_formatter(FuncFormatter(_tick))
    main.yaxis.set_minor_formatter(FuncFormatter(_no_tick))
    main.set_ylabel(label)


def _tick(value: float, _: int | None) -> str:
    return power_of_ten(value)


def _no_tick(value: float, _: int | None) -> str:
    return ""


def draw_legend(figure: Figure) -> None:
    """Draw the legend above the figure, in one row if it fits, else in columns that do."""
    labels = figure.axes[0].get_legend_handles_labels()[1]
    wide = max(map(len, labels), default=0)
    columns = max(1, min(4, int(64 / (wide + 6))))
    if sum(len(label) + 5 for label in labels) < 64:
        columns = max(1, len(labels))
    figure.legend(
        loc="outside upper center", ncols=columns, frameon=False, columnspacing=1.3,
        handletextpad=0.5, numpoints=1,
    )  # fmt: skip


def _reference(main: Axes, y: Array, name: str, height: float) -> None:
    """Draw a horizontal line, or only its legend if it is so far off that it flattens the runs."""
    if _is_off_scale(y, height):
        main.plot([], [], " ", label=f"{name} {height:.4f} (off scale)")
    else:
        main.axhline(height, color=RED, lw=1.4, ls=(0, (5, 3)), label=f"{name} {height:.4f}")


def _is_off_scale(y: Array, height: float) -> bool:
    return abs(float(y.min()) - height) > 3.0 * float(np.ptp(y)) and len(y) > 1


def _smooth(y: Array) -> Array:
    """Return the running mean over about 4 % of the curve; the window is shorter at the ends."""
    half = max(1, len(y) // 50)
    total = np.concatenate([[0.0], np.cumsum(y)])
    index = np.arange(len(y))
    low = np.maximum(index - half, 0)
    high = np.minimum(index + half + 1, len(y))
    result: Array = (total[high] - total[low]) / (high - low)
    return result
