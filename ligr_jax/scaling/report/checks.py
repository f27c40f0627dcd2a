"""Figures that check the laws and their uncertainty: noise, comparisons, predictions, time."""

from collections.abc import Iterator

import numpy as np
import polars as pl

from ligr_jax.runs.columns import LARGEST_INPUT_WAIT
from ligr_jax.scaling.fit import CONFIDENCE
from ligr_jax.scaling.report import figures
from ligr_jax.scaling.report.contrasts import repeated
from ligr_jax.scaling.report.drawn import Drawn, arm_words, facts, metric_words, points, runs_of
from ligr_jax.scaling.report.figures import IntervalRow, Series
from ligr_jax.scaling.report.forecasts import left_out_words
from ligr_jax.scaling.report.study import AXES, Study
from ligr_jax.scaling.report.style import power_of_ten


def checks(study: Study) -> Iterator[Drawn]:
    """Yield every such figure for which the study has runs."""
    yield from _noise(study)
    yield from _comparisons(study)
    yield from _forecasts(study)
    yield from _time(study)


def input_notes(study: Study) -> list[str]:
    """Return a warning if steps of some runs waited for their batches."""
    if not study.table.has("input_wait"):
        return []
    wait = np.nan_to_num(study.table.numbers("input_wait"))
    slow = np.flatnonzero(wait > LARGEST_INPUT_WAIT)
    if not len(slow):
        return []
    worst = int(slow[np.argmax(wait[slow])])
    return [
        f"{len(slow)} of {len(wait)} runs waited for input for more than "
        f"{LARGEST_INPUT_WAIT:.0%} of their "
        f"training time, {study.table.names[worst]} for {wait[worst]:.0%}: their seconds and MFU "
        "measure the data pipeline, not the devices; raise data.workers, or give the host more "
        "cores"
    ]


def split_notes(study: Study) -> list[str]:
    """Return a warning if the data of some runs are not split by time."""
    rows = study.table.not_split_by_time
    if not rows.any():
        return []
    return [
        f"{rows.sum()} of {len(rows)} runs have data that is not split by time: the last rows of "
        "each member are measured, and the model was trained on later rows of other members; "
        "compare them only with results of the same protocol"
    ]


def _noise(study: Study) -> Iterator[Drawn]:
    if study.noise is None:
        return
    rows = repeated(study.table)
    shape_of_run = study.table.shapes()
    c = study.table.numbers(study.axis)
    y = study.table.numbers(study.metric)
    mean = {
        shape: np.mean([y[i] for i in rows if shape_of_run[i] == shape])
        for shape in {shape_of_run[i] for i in rows}
    }
    rows = [i for i in rows if c[i] > 0]
    deviation = np.array([y[i] - mean[shape_of_run[i]] for i in rows])
    label = f"{metric_words(study.metric)} minus mean over seeds"
    series = Series(name=label, x=c[rows], y=deviation, runs=rows)
    detectable = [(n, float(study.noise.detectable(n))) for n in (1, 3)]
    caption = (
        "Variation between runs that differ only in the seed. Lines: smallest difference between "
        "two means (over the stated number of seeds each) that is detected with 80% probability at "
        f"{CONFIDENCE:.0%} confidence. "
    )
    yield Drawn(
        name="noise",
        section="noise",
        figure=figures.seed_scatter(series, detectable, axis=AXES[study.axis]),
        caption=caption + facts(study, series.runs, study.axis),
        points=points(study, [series]),
    )


def _comparisons(study: Study) -> Iterator[Drawn]:
    if not study.comparisons:
        return
    rows = [
        IntervalRow(
            name=f"{c.arm}, {'pairs' if c.kind == 'paired' else 'laws'}"
            + (f" at {power_of_ten(c.at)}" if c.at else ""),
            value=c.difference,
            low=c.low,
            high=c.high,
        )
        for c in study.comparisons
    ]
    baseline = study.comparisons[0].baseline
    figure = figures.spans(
        rows, label=f"{metric_words(study.metric)} minus that of {baseline}", zero=True
    )
    caption = (
        f"Difference of each architecture from {baseline}; below zero is better. Pairs: mean over "
        "pairs of runs with equal size, data and seed. Laws: difference between the two fitted "
        f"laws at equal {study.axis}. Bars: {CONFIDENCE:.0%} intervals (Student's t for pairs, "
        f"bootstrap for laws). {facts(study, study.ladder, study.axis)}"
    )
    table = pl.DataFrame(
        [{"name": r.name, "x": r.value, "low": r.low, "high": r.high} for r in rows]
    )
    yield Drawn(
        name="comparisons",
        section="comparisons",
        figure=figure,
        caption=caption,
        points=table,
    )


def _forecasts(study: Study) -> Iterator[Drawn]:
    if not study.forecasts:
        return
    number = {name: i for i, name in enumerate(study.table.names)}
    rows = [
        IntervalRow(
            name=f"{f.arm} {f.outcome.run[:12]}{'*' * f.beforehand}".strip(),
            value=f.outcome.predicted,
            low=f.outcome.low,
            high=f.outcome.high,
            observed=f.outcome.observed,
            run=number.get(f.outcome.run),
        )
        for f in study.forecasts
        if f.how != left_out_words(2)
    ]
    figure = figures.spans(rows, label=metric_words(study.metric))
    caption = (
        "Predicted and observed metric of the largest runs. The law was fitted without them; a "
        "star marks a prediction written before the run started. Bars: "
        f"{CONFIDENCE:.0%} bootstrap prediction intervals for one further run. "
        f"{facts(study, study.ladder, study.axis)}"
    )
    table = [vars(f.outcome) | {"arm": f.arm, "how": f.how} for f in study.forecasts]
    yield Drawn(
        name="forecasts",
        section="forecasts",
        figure=figure,
        caption=caption,
        points=pl.DataFrame(table),
    )


def _time(study: Study) -> Iterator[Drawn]:
    series = [s for s in _timed(study) if len(s.x)]
    if not series:
        return
    ratio = np.concatenate([s.y / s.x for s in series])
    caption = (
        "Actual seconds of each run, with compilation and evaluation, against the estimate made "
        "before it started. The time of runs trained together is divided by their number. Ratio of "
        f"actual to estimated time: median {np.median(ratio):.2f}, range {ratio.min():.2f} to "
        f"{ratio.max():.2f}. {facts(study, runs_of(series), 'device_seconds')}"
    )
    yield Drawn(
        name="time",
        section="time",
        figure=figures.estimated_time(series),
        caption=caption,
        points=points(study, series),
    )


def _timed(study: Study) -> list[Series]:
    """Return estimated (x) and actual (y) seconds per architecture, of runs that have both."""
    x = study.table.estimated_seconds
    y = study.table.actual_seconds
    if x is None or y is None:
        return []
    rows = [i for i in range(len(x)) if x[i] > 0 and y[i] > 0]
    by_arm = {arm: [i for i in rows if study.arms[i] == arm] for arm in study.order}
    return [Series(name=arm_words(a), x=x[r], y=y[r], runs=r) for a, r in by_arm.items()]
