"""Whether the answer depends on how compute is counted."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.plan.question import Asked
from ligr_jax.scaling.plan.rule import DERIVED, Rule, growth_rule
from ligr_jax.scaling.plan.shape import usable


def other_axes(
    table: pl.DataFrame, rule: Rule, planned: Mapping[str, float], devices: int, asked: Asked
) -> dict[str, dict[str, Any]]:
    """What the rules on the other compute axes say of the planned run.

    planned: the planned run's compute on every axis. Returns by axis its `shape`, and in `differs`
    the dimensions that leave the interval of the rule asked for; or the `reason` for no rule.
    """
    raw = rule.at(asked.flops)
    said: dict[str, dict[str, Any]] = {}
    chosen = usable(raw, rule.varied, devices)
    for axis, compute in planned.items():
        if axis == asked.axis or axis not in table.columns or table[axis].null_count():
            continue
        try:
            other = growth_rule(
                table, asked.metric, axis, lower_is_better=asked.lower_is_better, resamples=0
            )
        except BadInput as e:
            said[axis] = {"reason": str(e)}
            continue
        shape = usable(other.at(compute), other.varied, devices)
        shape = {n: v for n, v in shape.items() if n not in DERIVED}
        inside = {n: v == chosen[n] or raw[n][1] <= v <= raw[n][2] for n, v in shape.items()}
        said[axis] = {"shape": shape, "differs": [n for n, holds in inside.items() if not holds]}
    return said
