"""The planner: `make_plan` computes the shape to train next from finished runs."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from ligr_jax.config import flatten
from ligr_jax.cost.devices import check_device_name
from ligr_jax.data.schema import BadInput
from ligr_jax.runs.columns import config_column
from ligr_jax.runs.run_table import RunTable
from ligr_jax.scaling.fit import Law, fit_line, fit_power, fit_saturating
from ligr_jax.scaling.missing import runs_without_metric
from ligr_jax.scaling.plan.axes import other_axes
from ligr_jax.scaling.plan.recorded import recorded
from ligr_jax.scaling.plan.request import PlanRequest
from ligr_jax.scaling.plan.rule import DERIVED, GrowthRule, Interval, growth_rule
from ligr_jax.scaling.plan.shape import usable
from ligr_jax.scaling.plan.training import TrainingPlan, train_plan

# Plans are for this kind of model and of head; other runs are ignored.
PLAIN = {
    config_column("model.kind"): "ligr",
    config_column("model.actions_as"): "tokens",
    config_column("model.head.kind"): "linear",
    config_column("model.head.cross_layers"): 0,
}
REACH = 1.5  # decades beyond the largest run up to which plans are made without --far


@dataclass(frozen=True)
class Plan:
    """A planned run.

    Attributes:
        request: the request.
        law: law of the metric in compute, fitted to the runs on the frontier.
        predicted: metric of the planned run with prediction interval (value, low, high).
        rule: growth of each dimension.
        raw: each dimension at the budget with its interval.
        shape: dimensions rounded to sizes that can be trained.
        decades: distance of the budget from the largest run; negative within the runs.
        trained: steps, memory, time and command; None if the runs lack their configuration.
        other_axes: results of the rules on other compute axes; empty in that case.
        warnings: what limits the plan.
    """

    request: PlanRequest
    law: Law
    predicted: Interval
    rule: GrowthRule
    raw: dict[str, Interval]
    shape: dict[str, int | float]
    decades: float
    trained: TrainingPlan | None
    other_axes: dict[str, dict[str, Any]]
    warnings: tuple[str, ...]


def make_plan(table: pl.DataFrame, request: PlanRequest) -> Plan:
    """Plan the next run.

    Args:
        table: finished runs (`ligr_jax.runs.table.read_runs`).
        request: budget and constraints.

    Returns:
        The plan.

    Raises:
        BadInput: there are no usable runs or only one budget, the requested budget is too small or
            too far from the runs, or the shape cannot be served in time.
        ValueError: the device is unknown.
    """
    if request.device:
        check_device_name(request.device)
    runs, notes = _sound(RunTable(table), request)
    rule = growth_rule(
        runs,
        request.metric,
        request.axis,
        lower_is_better=request.lower_is_better,
        resamples=request.resamples,
        seed=request.seed,
    )
    decades = _reach(rule, request)
    law = _law(runs, rule, request)
    value, low, high = (float(v) for v in law.predict(request.flops, run_noise=True))
    if decades > REACH:
        notes.append(
            f"the plan is unreliable: it extrapolates by {decades:.1f} decades, and its intervals "
            "hold only if the laws do"
        )
    raw = rule.at(request.flops)
    shape = usable(raw, rule.varied)

    # Steps, memory and time need the configurations of the runs, which foreign tables lack. With
    # them the shape is the one that fits into memory and divides over the devices.
    trained = None
    others: dict[str, dict[str, Any]] = {}
    record = recorded(runs, rule)
    if record:
        trained = train_plan(record, rule, law, request)
        flat = flatten(trained.config)
        shape = {n: flat[n] for n in shape if n not in DERIVED}
        others = other_axes(runs, rule, trained.steps.axes, trained.devices, request)
        notes += trained.warnings
    else:
        notes.append(
            "the runs do not record their configurations, so the plan has no steps, memory, time "
            "or command"
        )
    return Plan(
        request=request,
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


def _sound(table: RunTable, request: PlanRequest) -> tuple[RunTable, list[str]]:
    """Return LiGR's runs without leaks and diverged runs, and notes on the runs left out."""
    if not len(table):
        raise BadInput("no finished runs to plan from")
    leaks = table.leaks
    rivals = np.zeros(len(table), bool)
    for name in PLAIN.keys() & set(table.columns):
        rivals |= (table.frame[name].fill_null(PLAIN[name]) != PLAIN[name]).to_numpy()
    no_metric = ~np.isfinite(table.numbers(request.metric)) & ~leaks & ~rivals
    names = np.array(table.names, object)
    notes = []
    for mask, why in (
        (table.beats_oracle, "better than the oracle, which indicates a leak"),
        (leaks & ~table.beats_oracle, "trained on actions of their own session, a leak"),
        (rivals, "another kind of model or head; plans are for LiGR with linear heads"),
    ):
        if mask.any():
            notes.append(f"left out ({why}): {', '.join(names[mask])}")
    for why, runs in runs_without_metric(table.where(no_metric), request.metric).items():
        notes.append(f"left out (no {request.metric}, {why}): {', '.join(runs)}")
    compute = table.numbers(request.axis)
    no_compute = ~(np.isfinite(compute) & (compute > 0)) & ~(leaks | rivals | no_metric)
    if no_compute.any():
        without = ", ".join(
            f"{name} ({c:g})" for name, c in zip(names[no_compute], compute[no_compute])
        )
        notes.append(f"left out ({request.axis} is not a positive number): {without}")
    table = table.where(~(leaks | rivals | no_metric | no_compute))
    if not len(table):
        raise BadInput(f"no usable runs; {'; '.join(notes)}")
    return table, notes


def _reach(rule: GrowthRule, request: PlanRequest) -> float:
    """Return the decades from the largest run to the budget; raise BadInput if it is too far."""
    smallest, largest = rule.compute
    if not request.flops >= smallest:
        raise BadInput(
            f"--flops {request.flops:.3g} is below the smallest run's {smallest:.3g} on "
            f"{request.axis}; give {smallest:.3g} or more"
        )
    decades = math.log10(request.flops / largest)
    if decades > REACH and not request.far:
        raise BadInput(
            f"--flops {request.flops:.3g} is {decades:.1f} decades beyond the largest run's "
            f"{largest:.3g} on {request.axis}, more than {REACH:g}: train a run of about "
            f"{largest * 10**REACH:.2g} first, or give --far for an unreliable plan"
        )
    return decades


def _law(table: RunTable, rule: GrowthRule, request: PlanRequest) -> Law:
    """Fit the metric of the frontier's runs; other runs do not show what a good shape reaches."""
    best = table.where(np.isin(table.names, rule.frontier))
    metric = best.numbers(request.metric)
    fit: Callable[..., Law] = fit_power
    if not request.lower_is_better:  # a line would exceed 1, the largest possible AUC
        fit = fit_saturating if metric.max() < 1 else fit_line
    return fit(
        best.numbers(request.axis),
        metric,
        runs=best.names,
        resamples=request.resamples,
        seed=request.seed,
    )
