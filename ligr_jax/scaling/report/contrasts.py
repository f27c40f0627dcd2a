"""Noise floor and comparisons of architectures, computed from a table of runs."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ligr_jax.data.schema import BadInput
from ligr_jax.runs.run_table import RunTable
from ligr_jax.scaling.fit import Comparison, Noise, compare, noise_floor
from ligr_jax.scaling.report.arms import rungs


def noise(table: RunTable, metric: str) -> tuple[Noise | None, list[str]]:
    """Return the noise between runs that differ only in the seed, and notes.

    The noise is None if no shape was trained with several seeds, or if there are too few seeds.
    """
    rows = repeated(table)
    if not rows:
        return None, []
    shape_of_run = table.shapes()
    try:
        floor = noise_floor(table.take(rows).numbers(metric), [shape_of_run[i] for i in rows])
    except BadInput as e:
        return None, [f"no noise floor: {e}"]
    if floor.freedom < 2:
        return None, [
            "no noise floor: two seeds of one shape are too few to estimate it; add seeds"
        ]
    return floor, list(floor.warnings)


def repeated(table: RunTable) -> list[int]:
    """Return the row numbers of runs whose shape was trained with several seeds."""
    shape_of_run = table.shapes()
    count = Counter(shape_of_run)
    return [i for i, shape in enumerate(shape_of_run) if count[shape] > 1]


def comparisons(
    table: RunTable, arms: Sequence[str], metric: str, axis: str, resamples: int
) -> tuple[list[Comparison], list[str]]:
    """Compare every architecture with a baseline.

    The baseline is the architecture with the most runs; among those, the one with the best run.

    Args:
        table: runs.
        arms: architecture of each run.
        metric: column of the metric, lower is better.
        axis: column of compute.
        resamples: number of bootstrap resamples.

    Returns:
        The comparisons, and notes: their warnings, and why an architecture is not compared.
    """
    if len(set(arms)) < 2:
        return [], []
    c = table.numbers(axis)
    y = table.numbers(metric)
    arm_of_run = np.array(list(arms))
    pairs = np.array(rungs(table, arms))
    count = Counter(arms)
    baseline = min(count, key=lambda a: (-count[a], y[arm_of_run == a].min()))
    results: list[Comparison] = []
    notes = []
    for arm in sorted(set(arms) - {baseline}):
        both = ((arm_of_run == arm) | (arm_of_run == baseline)) & (np.nan_to_num(c) > 0)
        try:
            results += compare(
                c[both],
                y[both],
                arm_of_run[both].tolist(),
                pairs=pairs[both].tolist(),
                baseline=baseline,
                resamples=resamples,
            )
        except BadInput as e:
            notes.append(f"{arm} is not compared with {baseline}: {e}")
    return results, [*notes, *(w for comparison in results for w in comparison.warnings)]
