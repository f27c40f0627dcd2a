"""Compute axes: the work of a run, counted from its configuration and its data.

flops_paper   dense parameters x tokens seen (LiGR's own axis: no factor 6, no attention)
flops_6nd     6 x dense parameters x tokens seen
flops_model   matrix products of the model: 2 x multiply-adds of projections, gates, feed-forward
              layers and heads, and 4K per attention head for each pair that the mask allows; the
              backward pass costs twice the forward pass. Padding is not counted.
"""

from collections.abc import Mapping
from typing import Any

import jax

from ligr_jax.config import ModelConfig
from ligr_jax.nn.models import model_kind
from ligr_jax.nn.work import Work
from ligr_jax.tables.table import is_table


def forward_flops(config: ModelConfig, work: Work) -> dict[str, float]:
    """Return the FLOPs of the forward pass, by part of the model.

    Args:
        config: the model.
        work: the impressions and attention pairs that go through it.
    """
    return model_kind(config).forward_flops(config, work)


def train_flops(config: ModelConfig, work: Work) -> float:
    """Return `flops_model` of training on `work`: three times the forward pass."""
    return 3.0 * sum(forward_flops(config, work).values())


_GROUP_OF_MODULE = {
    "gate": "gates",
    "attention": "attention",
    "target_attention": "attention",
    "decoder": "attention",
    "ffn": "ffn",
    "per_token": "ffn",
}


def parameter_counts(config: ModelConfig, params: Mapping[str, Any]) -> dict[str, int]:
    """Count parameters by group, with `dense` and `tables` as totals.

    Padding of tables is not counted.

    Args:
        config: the model.
        params: its parameters, as arrays or shapes.
    """
    groups = {"tables": sum(shape.rows * shape.width for shape in config.tables.values())}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if is_table(path):
            continue
        group = _group([str(getattr(p, "key", p)) for p in path])
        groups[group] = groups.get(group, 0) + leaf.size
    return {"dense": sum(v for k, v in groups.items() if k != "tables"), **groups}


def compute_axes(config: ModelConfig, dense_parameters: int, work: Work) -> dict[str, float]:
    """Return the compute axes of training on `work`, named as in the module's docstring.

    Args:
        config: the model.
        dense_parameters: number of dense parameters; see `parameter_counts`.
        work: all impressions and attention pairs of the training.
    """
    tokens = 2 * work.impressions
    return {
        "flops_paper": dense_parameters * tokens,
        "flops_6nd": 6.0 * dense_parameters * tokens,
        "flops_model": train_flops(config, work),
    }


def _group(names: list[str]) -> str:
    if "setwise" in names:
        return "setwise"
    for part, group in _GROUP_OF_MODULE.items():
        if part in names:
            return group
    return "inputs" if names[0] in ("items", "actions", "tokens") else names[0]
