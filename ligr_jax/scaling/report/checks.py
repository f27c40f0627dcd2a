"""Figures of how far to trust the laws: noise, comparisons, forecasts, estimated time."""

from collections.abc import Iterator

import numpy as np
import polars as pl

from ligr_jax.scaling.fit import CONFIDENCE
from ligr_jax.scaling.report import figures
from ligr_jax.scaling.report.contrasts import repeated
from ligr_jax.scaling.report.drawn import Drawn, arm_words, facts, metric_words, points, runs_of
from ligr_jax.scaling.report.figures import Series, Span
from ligr_jax.scaling.report.forecasts import left_out_words
from ligr_jax.scaling.report.study import AXES, Study
from ligr_jax.scaling.runs import column, shapes


def checks(found: Study) -> Iterator[Drawn]:
    """All of them that the study has runs for."""
    yield from _noise(found)
    yield from _comparisons(found)
    yield from _forecasts(found)
    yield from _time(found)


def _noise(found: Study) -> Iterator[Drawn]:
    if found.noise is None:
        return
    rows = repeated(found.table)
    alike = shapes(found.table)
    c, y = column(found.table, found.axis), column(found.table, found.metric)
    mean = {k: np.mean([y[i] for i in rows if alike[i] == k]) for k in {alike[i] for i in rows}}
    rows = [i for i in rows if c[i] > 0]
    away = np.array([y[i] - mean[alike[i]] for i in rows])
    label = f"{metric_words(found.metric)}, less seeds' mean"
    series = Series(label, c[rows], away, rows)
    least = [(n, float(found.noise.detectable(n))) for n in (1, 3)]
    caption = (
        "Scatter between runs that differ in the seed alone. Lines: the least difference of two "
        f"means of so many seeds that is found in 80% of cases at {CONFIDENCE:.0%} confidence. "
    )
    yield Drawn(
        "noise", "noise", figures.seed_scatter(series, least, axis=AXES[found.axis]),
        caption + facts(found, series.runs, found.axis), points(found, [series]),
    )  # fmt: skip


def _comparisons(found: Study) -> Iterator[Drawn]:
    if not found.comparisons:
        return
    rows = [
        Span(
            f"{c.arm}, {'pairs' if c.kind == 'paired' else 'laws'}"
            + (f" at {figures.power_of_ten(c.at)}" if c.at else ""),
            c.difference, c.low, c.high,
        )
        for c in found.comparisons
    ]  # fmt: skip
    baseline = found.comparisons[0].baseline
    figure = figures.spans(rows, label=f"{metric_words(found.metric)} less {baseline}'s", zero=True)
    caption = (
        f"Each architecture against {baseline}; left of zero is better. Paired: runs of one size, "
        f"data and seed; laws: their difference at equal {found.axis}. Bars: "
        f"{CONFIDENCE:.0%} bootstrap intervals. "
        f"{facts(found, found.ladder, found.axis)}"
    )
    table = pl.DataFrame(
        [{"name": r.name, "x": r.value, "low": r.low, "high": r.high} for r in rows]
    )
    yield Drawn("comparisons", "comparisons", figure, caption, table)


def _forecasts(found: Study) -> Iterator[Drawn]:
    if not found.forecasts:
        return
    at = {name: i for i, name in enumerate(found.table["run"])}
    rows = [
        Span(
            f"{f.arm} {f.outcome.run[:12]}{'*' * f.beforehand}".strip(),
            f.outcome.predicted, f.outcome.low, f.outcome.high, f.outcome.observed,
            at.get(f.outcome.run),
        )
        for f in found.forecasts
        if f.how != left_out_words(2)
    ]  # fmt: skip
    figure = figures.spans(rows, label=metric_words(found.metric))
    caption = (
        "The largest runs: what a law that did not see them predicted (with a star: before they "
        "were run), and what was observed. Bars: "
        f"{CONFIDENCE:.0%} bootstrap intervals for one further run. "
        f"{facts(found, found.ladder, found.axis)}"
    )
    table = [vars(f.outcome) | {"arm": f.arm, "how": f.how} for f in found.forecasts]
    yield Drawn("forecasts", "forecasts", figure, caption, pl.DataFrame(table))


def _time(found: Study) -> Iterator[Drawn]:
    series = [s for s in _timed(found) if len(s.x)]
    if not series:
        return
    ratio = np.concatenate([s.y / s.x for s in series])
    caption = (
        f"Seconds of a run, compiling and evaluation included, against the estimate made before "
        f"it; of runs trained together each one's share. Actual over "
        f"estimated: median {np.median(ratio):.2f}, from {ratio.min():.2f} to {ratio.max():.2f}, "
        f"no interval. {facts(found, runs_of(series), 'device_seconds')}"
    )
    yield Drawn("time", "time", figures.estimated_time(series), caption, points(found, series))


def _timed(found: Study) -> list[Series]:
    """Estimated (x) and actual (y) seconds of the runs of each architecture that have both."""
    parts = ("start_seconds", "seconds", "eval_seconds")
    if not {"estimate/seconds", *parts} <= set(found.table.columns):
        return []
    x = column(found.table, "estimate/seconds")
    y = np.sum([column(found.table, part) for part in parts], axis=0)
    rows = [i for i in range(len(x)) if x[i] > 0 and y[i] > 0]
    of = {arm: [i for i in rows if found.arms[i] == arm] for arm in found.order}
    return [Series(arm_words(a), x[r], y[r], r) for a, r in of.items()]
