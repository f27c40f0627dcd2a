"""Predictions and outcomes: laws fitted without the largest runs, and preregistered predictions."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ligr_jax.data.schema import BadInput
from ligr_jax.runs.files import PREDICTION_FILES
from ligr_jax.runs.run_table import RunTable
from ligr_jax.runs.table import Runs
from ligr_jax.scaling.fit import LeftOut, fit_power, leave_out_largest, score
from ligr_jax.scaling.fit.registered import read_registered
from ligr_jax.scaling.report.arms import sampling, subset

SAME_BUDGET = 0.02  # relative difference in compute up to which a run counts as the predicted one


class Forecast(NamedTuple):
    """A prediction and its outcome.

    `arm` is the architecture, `how` says how the prediction was made. `beforehand` is true for a
    prediction written before the run started, false for a fit that leaves the run out.
    """

    arm: str
    how: str
    outcome: LeftOut
    beforehand: bool = False


def left_out(
    table: RunTable, arms: Sequence[str], metric: str, axis: str, resamples: int
) -> list[Forecast]:
    """Fit each architecture without its largest budget, then without two, and predict those."""
    forecasts = []
    for arm in dict.fromkeys(arms):
        part = subset(table, arms, arm, axis)
        for k in (1, 2):
            try:
                outcomes = leave_out_largest(
                    fit_power,
                    part.numbers(axis),
                    part.numbers(metric),
                    k,
                    **sampling(part, resamples),
                )
            except BadInput:  # too few budgets would remain
                break
            how = left_out_words(k)
            forecasts += [Forecast(arm=arm, how=how, outcome=outcome) for outcome in outcomes]
    return forecasts


def left_out_words(k: int) -> str:
    """Return `Forecast.how` of a fit without the k largest budgets."""
    return "largest budget left out" if k == 1 else f"largest {k} budgets left out"


def registered(runs: Runs, metric: str) -> list[Forecast]:
    """Score the predictions in the sweeps' prediction files whose run has finished.

    The run is the one named in the file; if it is not in the table, every run within 2 % of the
    prediction's compute.

    Args:
        runs: runs of the report.
        metric: column of the metric, for a file that names none.

    Raises:
        BadInput: a file is not a registered prediction.
    """
    forecasts = []
    parents = {run.parent for run in runs.directories.values()}
    for path in sorted(path for parent in parents for path in parent.glob(PREDICTION_FILES)):
        written = read_registered(path)
        name = written["metric"] if written.get("metric") in runs.table.columns else metric
        # Date and time to the minute; the whole time stamp is in the file.
        when = f"written {written.get('registered', 'before')[:16].replace('T', ' ')}"
        for run, observed in _outcomes(RunTable(runs.table), written, name):
            outcome = replace(score(path, observed), run=run)
            forecasts.append(Forecast(arm="", how=when, outcome=outcome, beforehand=True))
    return forecasts


def _outcomes(table: RunTable, written: dict[str, Any], metric: str) -> Iterator[tuple[str, float]]:
    """Yield the finished runs that the prediction is about, with their metric."""
    y = table.numbers(metric)
    compute = table.flops_model
    is_named = written.get("run") in table.names
    for run, value, flops in zip(table.names, y, compute):
        near = written.get("compute") and abs(flops / written["compute"] - 1) < SAME_BUDGET
        if np.isfinite(value) and (run == written.get("run") if is_named else near):
            yield run, float(value)
