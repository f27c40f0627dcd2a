"""Noise floor and comparisons of a study: what the fits of those names make of its runs."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import polars as pl

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit import Comparison, Noise, compare, noise_floor
from ligr_jax.scaling.report.arms import rungs
from ligr_jax.scaling.runs import column, shapes


def noise(table: pl.DataFrame, metric: str) -> tuple[Noise | None, list[str]]:
    """Scatter between runs that differ in the seed alone, where some do, with notes."""
    rows = repeated(table)
    if not rows:
        return None, []
    alike = shapes(table)
    try:
        found = noise_floor(column(table[rows], metric), [alike[i] for i in rows])
    except BadInput as e:
        return None, [f"no noise floor: {e}"]
    if found.freedom < 2:
        return None, ["no noise floor: two seeds of one shape say next to nothing; add seeds"]
    return found, list(found.warnings)


def repeated(table: pl.DataFrame) -> list[int]:
    """Places of the runs that have a twin of another seed."""
    alike = shapes(table)
    often = Counter(alike)
    return [i for i, shape in enumerate(alike) if often[shape] > 1]


def comparisons(
    table: pl.DataFrame, arms: Sequence[str], metric: str, axis: str, resamples: int
) -> tuple[list[Comparison], list[str]]:
    """Every architecture against the one with most runs (of equals, the best), with notes."""
    if len(set(arms)) < 2:
        return [], []
    c, y, of = column(table, axis), column(table, metric), np.array(list(arms))
    often, pairs = Counter(arms), np.array(rungs(table, arms))
    baseline = min(often, key=lambda a: (-often[a], y[of == a].min()))
    found: list[Comparison] = []
    notes = []
    for arm in sorted(set(arms) - {baseline}):
        two = ((of == arm) | (of == baseline)) & (np.nan_to_num(c) > 0)
        try:
            found += compare(
                c[two],
                y[two],
                of[two].tolist(),
                pairs=pairs[two].tolist(),
                baseline=baseline,
                resamples=resamples,
            )
        except BadInput as e:
            notes.append(f"{arm} is not compared with {baseline}: {e}")
    return found, [*notes, *(w for each in found for w in each.warnings)]
