"""Predictions and what came of them: the largest runs left out, and what was written beforehand."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit import LeftOut, fit_power, leave_out_largest, score
from ligr_jax.scaling.report.arms import sampling, subset
from ligr_jax.scaling.runs import Runs, column

SAME_BUDGET = 0.02  # a run this near in compute is the one predicted


class Forecast(NamedTuple):
    """A prediction and its outcome. how: what it was made from, and when.

    beforehand: whether it was written before the run, rather than by leaving that run out.
    """

    arm: str
    how: str
    outcome: LeftOut
    beforehand: bool = False


def left_out(
    table: pl.DataFrame, arms: Sequence[str], metric: str, axis: str, resamples: int
) -> list[Forecast]:
    """Each architecture's law without its largest budget, then without two, asked for them."""
    found = []
    for arm in dict.fromkeys(arms):
        part = subset(table, arms, arm, axis)
        for k in (1, 2):
            try:
                outcomes = leave_out_largest(
                    fit_power,
                    column(part, axis),
                    column(part, metric),
                    k,
                    **sampling(part, resamples),
                )
            except BadInput:  # too few budgets would remain
                break
            found += [Forecast(arm, left_out_words(k), each) for each in outcomes]
    return found


def left_out_words(k: int) -> str:
    return "largest budget left out" if k == 1 else f"largest {k} budgets left out"


def registered(runs: Runs, metric: str) -> list[Forecast]:
    """What the sweeps' prediction.json foretold, where that run has finished since.

    The run is the named one, or else those within 2 % of the prediction's compute. Raises BadInput
    for a file that is no prediction.
    """
    found = []
    for path in sorted({place.parent / "prediction.json" for place in runs.places.values()}):
        if not path.exists():
            continue
        said = _read(path)
        name = said["metric"] if said.get("metric") in runs.table.columns else metric
        for run, observed in _outcomes(runs.table, said, name):
            when = f"written {said['registered']}" if "registered" in said else "written before"
            found.append(Forecast("", when, replace(score(path, observed), run=run), True))
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text())
    except json.JSONDecodeError as e:
        raise BadInput(f"{path}: not JSON ({e}); write it with `register`") from e
    if not isinstance(said, dict):
        raise BadInput(f"{path}: not a registered prediction; write it with `register`")
    return said


def _outcomes(
    table: pl.DataFrame, said: dict[str, Any], metric: str
) -> Iterator[tuple[str, float]]:
    """Runs the prediction is of, with what was observed."""
    y = column(table, metric)
    compute = column(table, "flops_model")
    named = said.get("run") in set(table["run"])
    for run, value, flops in zip(table["run"], y, compute):
        near = said.get("compute") and abs(flops / said["compute"] - 1) < SAME_BUDGET
        if np.isfinite(value) and (run == said.get("run") if named else near):
            yield run, float(value)
