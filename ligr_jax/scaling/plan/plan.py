"""The shape to train next, from the runs there are: `make_plan`."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from ligr_jax.config import flatten
from ligr_jax.data.schema import BadInput
from ligr_jax.parallel.peak import check_name
from ligr_jax.scaling.fit import Law, fit_line, fit_power, fit_saturating
from ligr_jax.scaling.plan.axes import other_axes
from ligr_jax.scaling.plan.question import Asked
from ligr_jax.scaling.plan.recorded import recorded
from ligr_jax.scaling.plan.rule import DERIVED, Interval, Rule, growth_rule
from ligr_jax.scaling.plan.shape import usable
from ligr_jax.scaling.plan.trained import Trained, train_plan
from ligr_jax.scaling.runs import column

# What plans count: the kind of model and of head.
PLAIN = {"config/model.kind": "ligr", "config/model.head.kind": "linear"}
REACH = 1.5  # decades beyond the largest run that are still answered


@dataclass(frozen=True)
class Plan:
    """The answer.

    law: of the frontier's runs; predicted: of a run at the budget. raw: every dimension with its
    interval; shape: rounded to sizes that work. decades: beyond the largest run, negative within.
    trained: what it takes, and other_axes: what the rules on other compute axes say; None and
    empty where the runs do not record their configuration.
    """

    asked: Asked
    law: Law
    predicted: Interval
    rule: Rule
    raw: dict[str, Interval]
    shape: dict[str, int | float]
    decades: float
    trained: Trained | None
    other_axes: dict[str, dict[str, Any]]
    warnings: tuple[str, ...]


def make_plan(table: pl.DataFrame, asked: Asked) -> Plan:
    """Plans the next run from a table of finished ones (`ligr_jax.scaling.runs.read_runs`).

    Raises:
        BadInput: no usable runs, one budget, a budget too small or too far, or a shape that cannot
            be served in time.
        ValueError: an unknown device.
    """
    if asked.device:
        check_name(asked.device)
    table, notes = _sound(table, asked)
    rule = growth_rule(
        table,
        asked.metric,
        asked.axis,
        lower_is_better=asked.lower_is_better,
        resamples=asked.resamples,
        seed=asked.seed,
    )
    decades = _reach(rule, asked)
    law = _law(table, rule, asked)
    value, low, high = (float(v) for v in law.predict(asked.flops, run_noise=True))
    raw, trained, others = rule.at(asked.flops), None, {}
    shape = usable(raw, rule.varied)
    record = recorded(table, rule)
    if record:
        trained = train_plan(record, rule, law, asked)
        flat = flatten(trained.config)
        shape = {n: flat[n] for n in shape if n not in DERIVED}
        others = other_axes(table, rule, trained.steps.axes, trained.devices, asked)
        notes += trained.warnings
    else:
        notes.append("the runs do not record their configurations: no steps, memory, time, command")
    return Plan(
        asked=asked,
        law=law,
        predicted=(value, low, high),
        rule=rule,
        raw=raw,
        shape=shape,
        decades=decades,
        trained=trained,
        other_axes=others,
        warnings=(*notes, *rule.warnings, *law.warnings),
    )


def _sound(table: pl.DataFrame, asked: Asked) -> tuple[pl.DataFrame, list[str]]:
    """LiGR's runs without leaks and diverged ones, and what was left out."""
    if table.is_empty():
        raise BadInput("no finished runs: nothing to plan from")
    leaks = np.zeros(len(table), bool)
    if "beats_oracle" in table.columns:
        leaks = table["beats_oracle"].cast(pl.Boolean).fill_null(False).to_numpy()
    rivals = np.zeros(len(table), bool)
    for name in PLAIN.keys() & set(table.columns):
        rivals |= (table[name].fill_null(PLAIN[name]) != PLAIN[name]).to_numpy()
    lost = ~np.isfinite(column(table, asked.metric)) & ~leaks & ~rivals
    names, notes = table["run"].to_numpy(), []
    for mask, why in (
        (leaks, "beats the oracle, look for a leak"),
        (rivals, "another kind of model or head: plans are of LiGR with its own"),
        (lost, f"no {asked.metric}"),
    ):
        if mask.any():
            notes.append(f"left out ({why}): {', '.join(names[mask])}")
    table = table.filter(~(leaks | rivals | lost))
    if table.is_empty():
        raise BadInput(f"no usable runs; {'; '.join(notes)}")
    compute = column(table, asked.axis)
    for name, c in zip(table["run"], compute):
        if not np.isfinite(c) or c <= 0:
            raise BadInput(f"run {name}: {asked.axis} is {c:g}; leave it out, or choose an --axis")
    return table, notes


def _reach(rule: Rule, asked: Asked) -> float:
    """Decades from the largest run to the budget."""
    smallest, largest = rule.compute
    if not asked.flops >= smallest:
        raise BadInput(
            f"--flops {asked.flops:.3g} is below the smallest run's {smallest:.3g} on "
            f"{asked.axis}; ask for {smallest:.3g} or more"
        )
    decades = math.log10(asked.flops / largest)
    if decades > REACH and not asked.far:
        raise BadInput(
            f"--flops {asked.flops:.3g} is {decades:.1f} decades beyond the largest run's "
            f"{largest:.3g} on {asked.axis}, more than {REACH:g}: train a run of about "
            f"{largest * 10**REACH:.2g} first, or give --far to hear a guess"
        )
    return decades


def _law(table: pl.DataFrame, rule: Rule, asked: Asked) -> Law:
    """Of the frontier: other runs are no guide to what a well-chosen shape reaches."""
    best = table.filter(pl.col("run").is_in(rule.frontier))
    metric = column(best, asked.metric)
    fit: Callable[..., Law] = fit_power
    if not asked.lower_is_better:  # a line would pass the most an AUC can be
        fit = fit_saturating if metric.max() < 1 else fit_line
    return fit(
        column(best, asked.axis),
        metric,
        runs=best["run"].to_list(),
        resamples=asked.resamples,
        seed=asked.seed,
    )
