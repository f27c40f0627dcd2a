"""Comparison of the plan with plans on other compute axes."""

from collections.abc import Mapping
from typing import Any

from ligr_jax.data.schema import BadInput
from ligr_jax.runs.run_table import RunTable
from ligr_jax.scaling.plan.request import PlanRequest
from ligr_jax.scaling.plan.rule import DERIVED, GrowthRule, growth_rule
from ligr_jax.scaling.plan.shape import usable

_TOLERANCE = 0.1  # relative difference between sizes that rounding may cause


def other_axes(
    table: RunTable,
    rule: GrowthRule,
    planned: Mapping[str, float],
    devices: int,
    request: PlanRequest,
) -> dict[str, dict[str, Any]]:
    """Apply the growth rules of the other compute axes to the planned run.

    Args:
        table: runs.
        rule: growth rule on the requested axis.
        planned: compute of the planned run by axis.
        devices: number of devices.
        request: the request.

    Returns:
        For each other axis either `shape` and `differs`, the dimensions that differ by more than a
        tenth and are outside the interval of the requested axis; or `reason`, why there is no rule.
    """
    raw = rule.at(request.flops)
    results: dict[str, dict[str, Any]] = {}
    chosen = usable(raw, rule.varied, devices)
    for axis, compute in planned.items():
        if axis == request.axis or not table.has(axis) or not table.is_complete(axis):
            continue
        try:
            other = growth_rule(
                table, request.metric, axis, lower_is_better=request.lower_is_better, resamples=0
            )
        except BadInput as e:
            results[axis] = {"reason": str(e)}
            continue
        shape = usable(other.at(compute), other.varied, devices)
        shape = {n: v for n, v in shape.items() if n not in DERIVED}
        differs = [
            n
            for n, v in shape.items()
            if abs(v - chosen[n]) > _TOLERANCE * chosen[n] and not raw[n][1] <= v <= raw[n][2]
        ]
        results[axis] = {"shape": shape, "differs": differs}
    return results
