"""Whether the answer depends on how compute is counted."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.plan.question import Asked
from ligr_jax.scaling.plan.rule import DERIVED, Rule, growth_rule
from ligr_jax.scaling.plan.shape import usable

_ALIKE = 0.1  # of a size: what rounding may change


def other_axes(
    table: pl.DataFrame, rule: Rule, planned: Mapping[str, float], devices: int, asked: Asked
) -> dict[str, dict[str, Any]]:
    """What the rules on the other compute axes say of the planned run.

    planned: the planned run's compute on every axis. Returns by axis its `shape`, and in `differs`
    the dimensions more than a tenth away that leave the interval of the rule asked for; or the
    `reason` for no rule.
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
        differs = [
            n
            for n, v in shape.items()
            if abs(v - chosen[n]) > _ALIKE * chosen[n] and not raw[n][1] <= v <= raw[n][2]
        ]
        said[axis] = {"shape": shape, "differs": differs}
    return said
