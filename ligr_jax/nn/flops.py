"""Compute axes: how much work a run did, counted from its configuration and its data.

flops_paper   dense parameters x tokens seen (LiGR's own axis: no factor 6, no attention)
flops_6nd     6 x dense parameters x tokens seen
flops_model   matrix products the model must do: 2 x multiply-adds of projections, gates, feed-
              forward and heads, and 4K per attention head for each pair the mask allows; the
              backward pass costs twice the forward one. Padding is not counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from ligr_jax.config import ModelConfig
from ligr_jax.tables.table import is_table


@dataclass(frozen=True)
class Work:
    """What went through a model: impressions, and allowed pairs of one layer of each kind."""

    impressions: float = 0.0
    history_pairs: float = 0.0
    set_pairs: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.impressions + other.impressions,
            self.history_pairs + other.history_pairs,
            self.set_pairs + other.set_pairs,
        )


def forward_flops(config: ModelConfig, work: Work) -> dict[str, float]:
    """Floating-point operations of the forward pass, by part of the model."""
    d, f, a = config.width, config.ffn_width, len(config.actions)
    n = work.impressions
    item = sum(_input_width(config, outcome=False))
    outcome = sum(_input_width(config, outcome=True))
    # Per token of one layer; an attention pair costs 2K for q k and 2K for p v, in each head.
    sublayers = 1 if config.ffn == "none" else 2
    attention, gates = 2 * 4 * d * d, 2 * d * d * sublayers * (config.gate == "sigmoid")
    ffn = 2 * {"gelu": 2, "swiglu": 3, "none": 0}[config.ffn] * d * f
    tokens = {"history": 2 * n * config.depth, "setwise": n * config.set_depth}
    layers = tokens["history"] + tokens["setwise"]
    heads = 2 * d * a * (1 + (config.set_depth > 0))
    return {
        "inputs": n * 2 * d * (item + outcome + 2 * a + 1),
        "attention_projections": layers * attention,
        "history_pairs": 4 * d * work.history_pairs * config.depth,
        "set_pairs": 4 * d * work.set_pairs * config.set_depth,
        "gates": layers * gates,
        "ffn": layers * ffn,
        "heads": n * heads,
    }


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


def _input_width(config: ModelConfig, outcome: bool) -> list[int]:
    widths = {"vector": lambda f: f.width, "numeric": lambda _: 2}
    return [
        (f.width or config.table_width) if f.has_table else widths[f.kind](f)
        for f in config.features.values()
        if f.outcome == outcome
    ]


def _group(names: list[str]) -> str:
    if "setwise" in names:
        return "setwise"
    for part, group in (("attention", "attention"), ("ffn", "ffn"), ("gate", "gates")):
        if part in names:
            return group
    return {"items": "inputs", "actions": "inputs"}.get(names[0], names[0])
