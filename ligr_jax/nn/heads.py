"""Heads of every kind of model, by configuration (`model.head`): logits of every action."""

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
    """One logit per action from a token. Initial logits are the log-odds of base rates.

    adds: the logits are added to those of another head, so they start at zero.
    normed: the token is layer-normalized first.
    """

    config: ModelConfig
    adds: bool = False
    normed: bool = True

    @nn.compact
    def __call__(self, h: jax.Array, deterministic: bool = True) -> jax.Array:
        """Return logits, float32 [..., A], for h [..., D]."""
        c, head = self.config, self.config.head
        start = (0.0,) * len(c.actions) if self.adds else base_logits(c)
        x = nn.LayerNorm(dtype=jnp.float32, name="norm")(h) if self.normed else h
        if head.kind == "linear":
            return logits_layer(start, "logits")(x / mup_scale(c).width)
        tasks = len(c.groups)
        dtype = jnp.dtype(c.dtype)
        if head.kind == "mlp":
            inputs = [x] * tasks
        else:
            inputs = list(jnp.moveaxis(_mixture(head, tasks, dtype)(x), -2, 0))
        towers = Towers(
            c.groups,
            start=start,
            widths=head.widths,
            gated=head.gated,
            dropout=c.dropout,
            dtype=dtype,
            name="towers",
        )
        return towers(inputs, deterministic)


def _mixture(head: HeadConfig, tasks: int, dtype: jnp.dtype) -> nn.Module:
    """Return the mixture of experts of a head: [..., D] -> [..., tasks, F]."""
    if head.kind == "mmoe":
        return MMoE(
            tasks=tasks,
            count=head.experts,
            widths=head.expert_widths,
            gated=head.gated,
            dtype=dtype,
            name="mmoe",
        )
    return PLE(
        tasks=tasks,
        count=head.experts,
        shared=head.shared_experts,
        widths=head.expert_widths,
        levels=head.levels,
        gated=head.gated,
        dtype=dtype,
        name="ple",
    )


def base_logits(config: ModelConfig) -> tuple[float, ...]:
    """Return the log-odds of the actions' base rates; zero if the configuration has no prior."""
    return log_odds(config.prior or [0.5] * len(config.actions))


def calibrated(config: ModelConfig, logits: jax.Array, parts: Mapping[str, jax.Array]) -> jax.Array:
    """Apply an isotonic layer to logits if `model.head.calibration` is set.

    Must be called inside the `__call__` of a compact module, which then owns the layer.

    Args:
        config: the model.
        logits: [B, N, A].
        parts: item features by name, [B, N, width] each; see `feature_parts`.

    Returns:
        float32 [B, N, A].
    """
    head = config.head
    if not head.calibration:
        return logits
    calibration = IsotonicCalibration(head.calibration_step, name="calibration")
    return calibration(logits, calibration_input(config, parts))


def calibration_input(config: ModelConfig, parts: Mapping[str, jax.Array]) -> jax.Array | None:
    """Return the features of the isotonic layer, [B, N, W]; None if it has none.

    Arguments are those of `calibrated`.
    """
    selected = [parts[name] for name in config.head.calibration_features]
    return jnp.concatenate(selected, axis=-1) if selected else None


def heads_flops(config: ModelConfig, width: int) -> int:
    """Return the FLOPs of the matrix products of `Heads` on one token [width]."""
    head, actions, tasks = config.head, len(config.actions), len(config.groups)
    if head.kind == "linear":
        return 2 * width * actions
    widths, gated, mixing = head.expert_widths, head.gated, 0
    if head.kind == "mmoe":
        mixing = mmoe_flops(width, tasks, head.experts, widths, gated)
    elif head.kind == "ple":
        mixing = ple_flops(
            width,
            tasks=tasks,
            count=head.experts,
            shared=head.shared_experts,
            widths=widths,
            levels=head.levels,
            gated=gated,
        )
    width = width if head.kind == "mlp" else widths[-1]
    return mixing + towers_flops(config, width)


def towers_flops(config: ModelConfig, width: int) -> int:
    """Return the FLOPs of one tower per group, on inputs [width]."""
    head = config.head
    widths = head.widths if head.kind != "linear" else ()
    last = widths[-1] if widths else width
    each = mlp_flops(width, widths, head.gated)
    return len(config.groups) * each + 2 * last * len(config.actions)


def calibration_flops(config: ModelConfig) -> int:
    """Return the FLOPs of `calibrated` on one impression: the map of calibration features."""
    head = config.head
    buckets = round((HIGH - LOW) / head.calibration_step)
    width = sum(
        feature_width(config, config.features[n]) - config.effects.get(config.table_of(n), 0)
        for n in head.calibration_features
    )
    return 2 * width * len(config.actions) * buckets
