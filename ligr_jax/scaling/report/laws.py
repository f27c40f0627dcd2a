"""Laws of a study: each architecture on each compute axis."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit import Law, fit_line, fit_power, fit_saturating
from ligr_jax.scaling.report.arms import sampling, subset
from ligr_jax.scaling.report.budgets import iso_flop_grid
from ligr_jax.scaling.report.dimensions import DIMENSIONS
from ligr_jax.scaling.runs import SEPARATOR, column, shapes

FEWEST = 5  # runs below which no law is drawn
PREFERRED = ("long_dwell", "click", "contribution")  # actions drawn first, three at most


class Laws(NamedTuple):
    """Laws of one compute axis: by architecture; power[arm] with its floor free, and the oracle's.

    auc, ceiling: of each AUC column, its line and, where one can be told, its saturating curve.
    reasons: why an architecture has no law here.
    """

    power: dict[str, dict[str, Law]]
    auc: dict[str, dict[str, Law]]
    ceiling: dict[str, dict[str, Law]]
    reasons: dict[str, str]


def ladder(table: pl.DataFrame, arms: Sequence[str], axis: str) -> list[int]:
    """Places of the runs that laws in compute are fitted to.

    Of every architecture the one sweep in which most grows together over most compute, with other
    seeds of its shapes: a law through runs that vary one dimension, or spread sizes over a budget,
    would be of their choice.
    """
    found: list[int] = []
    alike = shapes(table)
    for arm in dict.fromkeys(arms):
        parts: dict[str, list[int]] = {}
        for i, (a, sweeps) in enumerate(zip(arms, table["sweeps"])):
            for sweep in sweeps.split(SEPARATOR) if a == arm else ():
                parts.setdefault(sweep, []).append(i)
        order = {sweep: _grows(table[rows], axis) for sweep, rows in parts.items()}
        chosen = {alike[i] for i in parts[max(order, key=lambda sweep: order[sweep])]}
        found += [i for i, a in enumerate(arms) if a == arm and alike[i] in chosen]
    return sorted(found)


def _grows(table: pl.DataFrame, axis: str) -> tuple[bool, bool, float]:
    varying = [c for c in DIMENSIONS if c in table.columns and table[c].n_unique() > 1]
    compute = column(table, axis)
    compute = compute[compute > 0]
    span = float(np.ptp(np.log(compute))) if len(compute) else 0.0
    together = len(varying) > 1 and iso_flop_grid(table, axis) is None
    return len(table) >= FEWEST, together, span


def fit_laws(
    table: pl.DataFrame,
    arms: Sequence[str],
    metric: str,
    axis: str,
    aucs: Sequence[str],
    oracle: float | None,
    resamples: int,
) -> Laws:
    """NE's power law and the line of each AUC column, of every architecture on one axis."""
    laws = Laws({}, {}, {}, {})
    for arm in dict.fromkeys(arms):
        part = subset(table, arms, arm, axis)
        if len(part) < FEWEST:
            runs = f"{len(part)} usable run{'s' * (len(part) != 1)}"
            laws.reasons[arm] = f"{runs}, too few for a law; {FEWEST} are needed"
            continue
        c, y, options = column(part, axis), column(part, metric), sampling(part, resamples)
        try:
            laws.auc[arm] = {a: fit_line(c, column(part, a), **options) for a in aucs}
            laws.ceiling[arm] = _ceilings(part, axis, aucs, options)
            laws.power[arm] = {"free": fit_power(c, y, **options)}
            if oracle is not None and oracle < y.min():
                laws.power[arm]["oracle"] = fit_power(c, y, floor=oracle, **options)
        except BadInput as e:
            laws.reasons[arm] = str(e)
    return laws


def _ceilings(
    table: pl.DataFrame, axis: str, aucs: Sequence[str], options: dict[str, Any]
) -> dict[str, Law]:
    found = {}
    for name in aucs:
        try:
            found[name] = fit_saturating(column(table, axis), column(table, name), **options)
        except BadInput:  # it does not rise with compute: the line says so
            continue
    return found


def auc_columns(table: pl.DataFrame, split: str) -> list[str]:
    """Columns of AUC of up to three actions that every run has, the preferred ones first."""
    ends = (f"{split}/", "/auc")
    found = [
        c
        for c in table.columns
        if c.startswith(ends[0]) and c.endswith(ends[1]) and c.count("/") == 2
    ]
    whole = [c for c in found if np.isfinite(column(table, c)).all()]
    return sorted(whole, key=lambda c: (c.split("/")[1] not in PREFERRED, whole.index(c)))[:3]
