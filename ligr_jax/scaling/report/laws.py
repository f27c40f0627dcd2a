"""Laws of each architecture on each compute axis."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ligr_jax.data.schema import BadInput
from ligr_jax.runs.run_table import RunTable
from ligr_jax.scaling.fit import Law, fit_line, fit_power, fit_saturating
from ligr_jax.scaling.report.arms import sampling, subset
from ligr_jax.scaling.report.budgets import iso_flop_grid
from ligr_jax.scaling.report.dimensions import DIMENSIONS

FEWEST = 5  # runs that a law needs
PREFERRED = ("long_dwell", "click", "contribution")  # actions drawn first; at most three are drawn


class Laws(NamedTuple):
    """Laws on one compute axis, by architecture.

    `power[arm]` has the power law with a fitted floor ("free") and with the oracle's floor
    ("oracle"). `auc[arm]` has a line per AUC column, `ceiling[arm]` a saturating curve if the runs
    determine one. `reasons[arm]` says why an architecture has no law.
    """

    power: dict[str, dict[str, Law]]
    auc: dict[str, dict[str, Law]]
    ceiling: dict[str, dict[str, Law]]
    reasons: dict[str, str]


def ladder(table: RunTable, arms: Sequence[str], axis: str) -> list[int]:
    """Return the row numbers of the runs that laws in compute are fitted to.

    For each architecture this is one sweep: preferably one of at least five runs in which several
    dimensions grow together, and of those the one with the largest range of compute. Other seeds of
    its shapes are included. Runs that vary one dimension, or sizes at a fixed budget, are left out,
    because a law through them would describe the choice of those runs.
    """
    selected: list[int] = []
    shape_of_run = table.shapes()
    for arm in dict.fromkeys(arms):
        parts: dict[str, list[int]] = {}
        for i, (a, sweeps) in enumerate(zip(arms, table.sweeps)):
            for sweep in sweeps if a == arm else ():
                parts.setdefault(sweep, []).append(i)
        order = {sweep: _ladder_rank(table.take(rows), axis) for sweep, rows in parts.items()}
        best = max(order, key=lambda sweep: order[sweep])
        chosen = {shape_of_run[i] for i in parts[best]}
        selected += [i for i, a in enumerate(arms) if a == arm and shape_of_run[i] in chosen]
    return sorted(selected)


def _ladder_rank(table: RunTable, axis: str) -> tuple[bool, bool, float]:
    """Return a sort key: enough runs, several dimensions vary and no iso-FLOP grid, log range."""
    varying = [c for c in DIMENSIONS if table.has(c) and table.distinct(c) > 1]
    compute = table.numbers(axis)
    compute = compute[compute > 0]
    span = float(np.ptp(np.log(compute))) if len(compute) else 0.0
    together = len(varying) > 1 and iso_flop_grid(table, axis) is None
    return len(table) >= FEWEST, together, span


def fit_laws(
    table: RunTable,
    arms: Sequence[str],
    metric: str,
    axis: str,
    aucs: Sequence[str],
    oracle: float | None,
    resamples: int,
) -> Laws:
    """Fit the power law of the metric and a line per AUC column, for every architecture.

    Args:
        table: runs of the ladder.
        arms: architecture of each run.
        metric: column of the metric, lower is better.
        axis: column of compute.
        aucs: columns of AUC.
        oracle: the oracle's metric, used as the floor of a second power law; None: there is none.
        resamples: number of bootstrap resamples.

    Returns:
        The laws; an architecture without one has a reason.
    """
    laws = Laws(power={}, auc={}, ceiling={}, reasons={})
    for arm in dict.fromkeys(arms):
        part = subset(table, arms, arm, axis)
        if len(part) < FEWEST:
            runs = f"{len(part)} usable run{'s' * (len(part) != 1)}"
            laws.reasons[arm] = f"{runs}, too few for a law; {FEWEST} are needed"
            continue
        c = part.numbers(axis)
        y = part.numbers(metric)
        options = sampling(part, resamples)
        try:
            laws.auc[arm] = {a: fit_line(c, part.numbers(a), **options) for a in aucs}
            laws.ceiling[arm] = _ceilings(part, axis, aucs, options)
            laws.power[arm] = {"free": fit_power(c, y, **options)}
            if oracle is not None and oracle < y.min():
                laws.power[arm]["oracle"] = fit_power(c, y, floor=oracle, **options)
        except BadInput as e:
            laws.reasons[arm] = str(e)
    return laws


def _ceilings(
    table: RunTable, axis: str, aucs: Sequence[str], options: dict[str, Any]
) -> dict[str, Law]:
    curves = {}
    for name in aucs:
        try:
            curves[name] = fit_saturating(table.numbers(axis), table.numbers(name), **options)
        except BadInput:  # AUC does not rise with compute; the slope of its line shows that
            continue
    return curves


def auc_columns(table: RunTable, split: str) -> list[str]:
    """Return AUC columns of up to three actions that every run has, preferred actions first."""
    columns = [
        c
        for c in table.columns
        if c.startswith(f"{split}/") and c.endswith("/auc") and c.count("/") == 2
    ]
    complete = [c for c in columns if np.isfinite(table.numbers(c)).all()]
    return sorted(complete, key=lambda c: (c.split("/")[1] not in PREFERRED, complete.index(c)))[:3]
