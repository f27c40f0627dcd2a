"""Compute axes: how much work a run did, counted from its configuration and its data.

flops_paper   dense parameters x tokens seen (LiGR's own axis: no factor 6, no attention)
flops_6nd     6 x dense parameters x tokens seen
flops_model   matrix products the model must do: 2 x multiply-adds of projections, gates, feed-
              forward and heads, and 4K per attention head for each pair the mask allows; the
              backward pass costs twice the forward one. Padding is not counted.
"""

from collections.abc import Mapping
from typing import Any

import jax

from ligr_jax.config import ModelConfig
from ligr_jax.nn.models import MODELS
from ligr_jax.nn.work import Work
from ligr_jax.tables.table import is_table


def forward_flops(config: ModelConfig, work: Work) -> dict[str, float]:
    """Floating-point operations of the forward pass, by part of the model."""
    return MODELS[config.kind].forward_flops(config, work)


def train_flops(config: ModelConfig, work: Work) -> float:
    """`flops_model` of training on `work`: forward times three."""
    return 3.0 * sum(forward_flops(config, work).values())


def parameter_counts(config: ModelConfig, params: Mapping[str, Any]) -> dict[str, int]:
    """Parameters by group, with `dense` and `tables` as totals; padding of tables is not counted.

    params: arrays or shapes.
    """
    groups = {"tables": sum(shape.rows * shape.width for shape in config.tables.values())}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if is_table(path):
            continue
        group = _group([str(getattr(p, "key", p)) for p in path])
        groups[group] = groups.get(group, 0) + leaf.size
    return {"dense": sum(v for k, v in groups.items() if k != "tables"), **groups}


def compute_axes(config: ModelConfig, dense_parameters: int, work: Work) -> dict[str, float]:
    """The analytic compute axes of training on `work`."""
    tokens = 2 * work.impressions
    return {
        "flops_paper": dense_parameters * tokens,
        "flops_6nd": 6.0 * dense_parameters * tokens,
        "flops_model": train_flops(config, work),
    }


def _group(names: list[str]) -> str:
    if "setwise" in names:
        return "setwise"
    for part, group in (("attention", "attention"), ("ffn", "ffn"), ("gate", "gates")):
        if part in names:
            return group
    return "inputs" if names[0] in ("items", "actions", "tokens") else names[0]
