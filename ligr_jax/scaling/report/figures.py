"""The figures of a report, each from plain arrays. Points that are runs say so to the page."""

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
    """Runs of one kind. runs: their numbers in the report. predict: of a law fitted to them.

    order: a value per run; means at each value are joined by a line in its order.
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
    """Runs of each series with its law and band; below, residuals of the laws in percent.

    reference: name and height of a line across. band: what the bands are.
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
                at = [s.order == v for v in np.unique(s.order)]
                means = [s.x[i].mean() for i in at], [s.y[i].mean() for i in at]
                main.plot(*means, color=style.color, lw=1.6, ls=style.stroke)
            dots(main, s.x, s.y, s.runs, marker=style.mark, color=style.color)
            main.plot([], [], color=style.color, marker=style.mark, ls=style.stroke, label=s.name)
        if reference:
            _reference(main, np.concatenate([s.y for s in series]), *reference)
        value_axis(main, label)
        main.margins(y=0.12)
        if fitted:
            panels[1].axhline(0, color=INK, lw=0.8)
            panels[1].set_ylabel("residual, %", fontsize=10)
            panels[1].yaxis.set_major_locator(MaxNLocator(3, symmetric=True))
            panels[1].margins(y=0.2)
            main.fill_between([], [], [], color=GREY, alpha=0.3, lw=0, label=band)
        compute_axis(panels[-1], np.concatenate([s.x for s in series]), axis)
        _legend(figure)
        return figure


def iso_flop(series: Sequence[Series], curves: Sequence[Any], *, label: str) -> Figure:
    """Metric against size at each budget, its parabola in log size, and the minimum.

    curves: a fitted budget per series: curve (c0, c1, c2) of log10 size, optimum, metric, at_edge.
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
        _legend(figure)
        return figure


def optima(budgets: Sequence[Any], predict: Predict, *, axis: str) -> Figure:
    """Size at the minimum of each budget, with interval, and the power law through them."""
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
            at = [b.compute for b in edge], [b.optimum for b in edge]
            main.plot(*at, "x", color=RED, ms=8, label="minimum at the grid's edge, not fitted")
            _legend(figure)
        main.set_yscale("log")
        main.yaxis.set_major_formatter(FuncFormatter(lambda v, _: power_of_ten(v)))
        main.yaxis.set_minor_formatter(FuncFormatter(lambda v, _: ""))
        main.set_ylabel("dense parameters at the minimum")
        compute_axis(main, compute, axis)
        return figure


def frontier(
    everything: Series, best: Series, names: Sequence[str], *, axis: str, label: str
) -> Figure:
    """All runs, and in colour those no cheaper run beats, the last and first with their shape."""
    with styled():
        figure = Figure(figsize=(WIDTH, 4.0))
        main: Axes = figure.subplots()
        dots(main, everything.x, everything.y, everything.runs, marker="o", color=GREY, ms=4.5)
        edge = np.append(best.x, everything.x.max()), np.append(best.y, best.y[-1])
        main.step(*edge, where="post", color=BLUE, lw=1.4)
        dots(main, best.x, best.y, best.runs, marker="s", color=BLUE, ms=6.5)
        main.plot([], [], "s-", color=BLUE, label="best so far")
        main.plot([], [], "o", color=GREY, ms=4.5, label="other runs")
        value_axis(main, label)
        main.margins(y=0.15)
        compute_axis(main, everything.x, axis)
        for i, ha, shift in ((0, "left", 6), (len(names) - 1, "right", -6)):
            at = (float(best.x[i]), float(best.y[i]))
            side = "bottom" if i == 0 else "top"
            main.annotate(
                names[i], at, (shift, 5 if i == 0 else -7), textcoords="offset points", ha=ha,
                va=side, fontsize=10,
            )  # fmt: skip
        _legend(figure)
        return figure


def training_curves(
    curves: Sequence[tuple[int, Array, Array]], names: Sequence[str], *, axis: str, label: str
) -> Figure:
    """(series, compute, loss) of every run; darker lines are larger runs.

    The first 2 % of each curve, the fall from the initial values, would take all the height.
    """
    with styled():
        figure = Figure(figsize=(WIDTH, 4.0))
        main: Axes = figure.subplots()
        settled = [(i, x[len(x) // 50 :], _smooth(y)[len(y) // 50 :]) for i, x, y in curves]
        ordered = sorted(settled, key=lambda curve: curve[1][-1])
        for rank, (i, x, y) in enumerate(ordered):
            some = np.unique(np.linspace(0, len(x) - 1, 150).astype(int))
            shade = 0.3 + 0.7 * (rank + 1) / len(ordered)
            style = look(i)
            main.plot(x[some], y[some], color=style.color, ls=style.stroke, alpha=shade, lw=1.2)
        if len(names) > 1:
            for i, name in enumerate(names):
                main.plot([], [], color=look(i).color, ls=look(i).stroke, label=name)
            _legend(figure)
        value_axis(main, label)
        compute_axis(main, np.concatenate([x for _, x, _ in ordered]), axis)
        return figure


def seed_scatter(series: Series, detectable: Sequence[tuple[int, float]], *, axis: str) -> Figure:
    """Each run less the mean of its seeds, against compute; lines at what can be detected."""
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
        _legend(figure)
        return figure


@dataclass(frozen=True)
class Span:
    """A line of an interval plot: an estimate, and what was observed where that is known."""

    name: str
    value: float
    low: float
    high: float
    observed: float | None = None
    run: int | None = None


def spans(rows: Sequence[Span], *, label: str, zero: bool = False) -> Figure:
    """Estimates with intervals, one below the other; crosses are what was then observed."""
    with styled():
        figure = Figure(figsize=(WIDTH, 1.3 + 0.34 * len(rows)))
        main: Axes = figure.subplots()
        at = np.arange(len(rows))[::-1]
        for y, row in zip(at, rows):
            main.plot([row.low, row.high], [y, y], color=BLUE, lw=2.4, alpha=0.6)
        main.plot([r.value for r in rows], at, "o", color=BLUE, ms=6, label="estimate, interval")
        seen = [(r.observed, y, r.run) for y, r in zip(at, rows) if r.observed is not None]
        if seen:
            x, y, runs = zip(*seen)
            numbers = [n for n in runs if n is not None]
            style: dict[str, Any] = {"marker": "X", "color": RED, "ms": 7.5}
            if len(numbers) == len(seen):
                dots(main, np.array(x), np.array(y), numbers, **style)
            else:
                main.plot(x, y, ls="none", **style)
            main.plot([], [], ls="none", **style, label="observed")
            _legend(figure)
        if zero:
            main.axvline(0, color=INK, lw=0.8)
        main.set_yticks(at, [r.name for r in rows])
        main.set_ylim(-0.7, len(rows) - 0.3)
        main.spines["left"].set_visible(False)
        main.tick_params(axis="y", length=0)
        main.xaxis.set_major_locator(MaxNLocator(5))
        main.set_xlabel(label)
        return figure


def estimated_time(series: Sequence[Series]) -> Figure:
    """Seconds a run took (y) against what was estimated before it (x), both logarithmic."""
    with styled():
        figure = Figure(figsize=(WIDTH, 4.0))
        main: Axes = figure.subplots()
        both = np.concatenate([np.concatenate([s.x, s.y]) for s in series])
        ends = np.array([both.min() / 1.2, both.max() * 1.2])
        main.plot(ends, ends, color=INK, lw=0.9, ls=(0, (5, 3)), label="as estimated")
        for i, s in enumerate(series):
            style = look(i)
            dots(main, s.x, s.y, s.runs, marker=style.mark, color=style.color)
            main.plot([], [], style.mark, color=style.color, label=s.name)
        main.set_yscale("log")
        main.yaxis.set_major_formatter(FuncFormatter(lambda v, _: power_of_ten(v)))
        main.yaxis.set_minor_formatter(FuncFormatter(lambda v, _: ""))
        main.set_ylabel("actual, seconds")
        compute_axis(main, ends, "estimated, seconds")
        _legend(figure)
        return figure


def _legend(figure: Figure) -> None:
    labels = figure.axes[0].get_legend_handles_labels()[1]
    wide = max(map(len, labels), default=0)
    columns = max(1, min(4, int(46 / (wide + 6))))
    figure.legend(
        loc="outside upper center", ncols=columns, frameon=False, columnspacing=1.3,
        handletextpad=0.5, numpoints=1,
    )  # fmt: skip


def _reference(main: Axes, y: Array, name: str, height: float) -> None:
    """A line across, unless it lies so far off that it would flatten the runs to a line."""
    if abs(float(y.min()) - height) > 3.0 * float(np.ptp(y)) and len(y) > 1:
        main.plot([], [], " ", label=f"{name} {height:.4f} (off scale)")
    else:
        main.axhline(height, color=RED, lw=1.4, ls=(0, (5, 3)), label=f"{name} {height:.4f}")


def _smooth(y: Array) -> Array:
    """Running mean over about 4 % of the curve, shorter at its ends."""
    half = max(1, len(y) // 50)
    total = np.concatenate([[0.0], np.cumsum(y)])
    at = np.arange(len(y))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(y))
    return (total[high] - total[low]) / (high - low)
