"""Heads by configuration (`model.head`), of any kind of model: logits of every action."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.config import HeadConfig, ModelConfig
from ligr_jax.nn.calibration import HIGH, LOW, IsotonicCalibration
from ligr_jax.nn.features import feature_width
from ligr_jax.nn.mlp import mlp_flops
from ligr_jax.nn.multitask import PLE, MMoE, mmoe_flops, ple_flops
from ligr_jax.nn.mup import mup_scale
from ligr_jax.nn.towers import Towers, log_odds, logits_layer


class Heads(nn.Module):
    """One logit per action from a token; starts at the actions' base rates.

    adds: the head's logits are added to another's: they start at zero.
    normed: the token is normalized first.
    """

    config: ModelConfig
    adds: bool = False
    normed: bool = True

    @nn.compact
    def __call__(self, h: jax.Array, deterministic: bool = True) -> jax.Array:
        """h: [..., D]; returns float32 [..., A]."""
        c, head = self.config, self.config.head
        start = (0.0,) * len(c.actions) if self.adds else base_logits(c)
        x = nn.LayerNorm(dtype=jnp.float32, name="norm")(h) if self.normed else h
        if head.kind == "linear":
            return logits_layer(start, "logits")(x / mup_scale(c).width)
        tasks, dtype = len(c.groups), jnp.dtype(c.dtype)
        if head.kind == "mlp":
            inputs = [x] * tasks
        else:
            inputs = list(jnp.moveaxis(_mixture(head, tasks, dtype)(x), -2, 0))
        towers = Towers(c.groups, start, head.widths, head.gated, c.dropout, dtype, name="towers")
        return towers(inputs, deterministic)


def _mixture(head: HeadConfig, tasks: int, dtype: jnp.dtype) -> nn.Module:
    """[..., D] -> [..., tasks, F]."""
    widths, gated = head.expert_widths, head.gated
    if head.kind == "mmoe":
        return MMoE(tasks, head.experts, widths, gated, dtype, name="mmoe")
    return PLE(
        tasks, head.experts, head.shared_experts, widths, head.levels, gated, dtype, name="ple"
    )


def base_logits(config: ModelConfig) -> tuple[float, ...]:
    """Log-odds of the actions' base rates: zero where they are not known."""
    return log_odds(config.prior or [0.5] * len(config.actions))


def calibrated(config: ModelConfig, logits: jax.Array, parts: Mapping[str, jax.Array]) -> jax.Array:
    """Logits through an isotonic layer where `model.head.calibration` asks for it.

    To be called inside a module; parts: [B, N, width] by item feature, `feature_parts`.
    """
    head = config.head
    if not head.calibration:
        return logits
    named = [parts[name] for name in head.calibration_features]
    features = jnp.concatenate(named, axis=-1) if named else None
    return IsotonicCalibration(head.calibration_step, name="calibration")(logits, features)


def heads_flops(config: ModelConfig, width: int) -> int:
    """Of the matrix products of `Heads` on one token of `width` numbers."""
    head, actions, tasks = config.head, len(config.actions), len(config.groups)
    if head.kind == "linear":
        return 2 * width * actions
    widths, gated, mixing = head.expert_widths, head.gated, 0
    if head.kind == "mmoe":
        mixing = mmoe_flops(width, tasks, head.experts, widths, gated)
    elif head.kind == "ple":
        experts = (head.experts, head.shared_experts)
        mixing = ple_flops(width, tasks, *experts, widths, head.levels, gated)
    width = width if head.kind == "mlp" else widths[-1]
    return mixing + towers_flops(config, width)


def towers_flops(config: ModelConfig, width: int) -> int:
    """Of a tower for each group, on inputs of `width` numbers each."""
    head = config.head
    widths = head.widths if head.kind != "linear" else ()
    last = widths[-1] if widths else width
    each = mlp_flops(width, widths, head.gated)
    return len(config.groups) * each + 2 * last * len(config.actions)


def calibration_flops(config: ModelConfig) -> int:
    """Of `calibrated`, for the logits of one impression: the map of calibration features."""
    head = config.head
    buckets = round((HIGH - LOW) / head.calibration_step)
    width = sum(
        feature_width(config, config.features[n]) - config.effects.get(config.table_of(n), 0)
        for n in head.calibration_features
    )
    return 2 * width * len(config.actions) * buckets
