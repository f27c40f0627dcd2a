"""Slope of each architecture on every compute axis, and what its runs cost."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ligr_jax.data.schema import BadInput
from ligr_jax.runs.run_table import RunTable
from ligr_jax.scaling.fit import SlopeComparison, compare_slopes, fit_line
from ligr_jax.scaling.report.arms import sampling, subset


class Slope(NamedTuple):
    """Change of a metric per decade of compute, of one architecture on one axis.

    slope: the estimate.
    span: its interval, which resamples sizes; None if the runs give none.
    compared: the difference from the baseline, paired by seed; None for the baseline, and if the
        two share no seed.
    """

    axis: str
    metric: str
    arm: str
    runs: int
    slope: float
    span: tuple[float, float] | None
    compared: SlopeComparison | None


class Costs(NamedTuple):
    """Parameters, compute, memory and time of the largest run of an architecture.

    memory: estimated bytes, as before the training; None if unknown, as the others.
    step_ms: milliseconds per step.
    input_wait: share of the training time that waited for batches.
    """

    arm: str
    dense: float | None
    flops: float | None
    memory: float | None
    step_ms: float | None
    input_wait: float | None


def slopes(
    table: RunTable,
    arms: Sequence[str],
    metrics: Sequence[str],
    axes: Sequence[str],
    resamples: int,
) -> list[Slope]:
    """Return the slope of every architecture, metric and axis; empty for a single architecture.

    The baseline is the architecture with the most runs; among equals, LiGR.

    Args:
        table: runs of the ladder.
        arms: architecture of each run.
        metrics: columns of metrics.
        axes: columns of compute.
        resamples: number of bootstrap resamples.
    """
    if len(set(arms)) < 2:
        return []
    count = Counter(arms)
    baseline = min(count, key=lambda arm: (-count[arm], arm not in ("ligr", "base")))
    return [
        slope
        for axis in axes
        for metric in metrics
        for slope in _of_axis(table, arms, metric, axis, baseline, resamples)
    ]


def _of_axis(
    table: RunTable, arms: Sequence[str], metric: str, axis: str, baseline: str, resamples: int
) -> list[Slope]:
    c, y = table.numbers(axis), table.numbers(metric)
    usable = (np.nan_to_num(c) > 0) & np.isfinite(y)
    seeds = _seeds(table)
    arm_of_run = np.array(list(arms))
    try:
        compared = compare_slopes(
            c[usable],
            y[usable],
            arm_of_run[usable].tolist(),
            seeds[usable].tolist(),
            baseline=baseline,
        )
    except BadInput:  # the baseline has no usable run on this axis
        compared = []
    by_arm = {comparison.arm: comparison for comparison in compared}
    found = []
    for arm in dict.fromkeys(arms):
        part = subset(table, arms, arm, axis)
        try:
            law = fit_line(part.numbers(axis), part.numbers(metric), **sampling(part, resamples))
        except BadInput:  # a single size
            continue
        span = law.intervals.get("slope")
        slope = law.params["slope"]
        found.append(Slope(axis, metric, arm, law.points, slope, span, by_arm.get(arm)))
    return found


def _seeds(table: RunTable) -> np.ndarray:
    """Return a label of the seed of each run; equal for all runs of a table without seeds."""
    columns = [c for c in table.settings if c.endswith("train.seed")]
    return np.array(table.labels(columns)) if columns else np.array([""] * len(table))


def costs(table: RunTable, arms: Sequence[str], axis: str) -> list[Costs]:
    """Return the costs of the largest run of every architecture.

    Args:
        table: runs of the ladder.
        arms: architecture of each run.
        axis: column of compute.
    """

    def number(part: RunTable, column: str, i: int) -> float | None:
        value = float(part.numbers(column)[i]) if part.has(column) else float("nan")
        return value if np.isfinite(value) else None

    rows = []
    for arm in dict.fromkeys(arms):
        part = subset(table, arms, arm, axis)
        if not len(part):
            continue
        i = int(np.argmax(part.numbers(axis)))
        seconds, steps = number(part, "seconds", i), number(part, "steps", i)
        rows.append(
            Costs(
                arm=arm,
                dense=number(part, "params/dense", i),
                flops=number(part, axis, i),
                memory=number(part, "estimate/memory_bytes", i),
                step_ms=1e3 * seconds / steps if seconds and steps else None,
                input_wait=number(part, "input_wait", i),
            )
        )
    return rows
