"""Heads of every kind of model, by configuration (`model.head`): logits of every action.

    x       = LN [h ; u]              with the late features u of `ligr_jax.nn.head_inputs`
    logits  = head(x)                 linear layer, towers, or towers on mixtures of experts
            + W cross([LN h ; u])     with `cross_layers`: a tower of low-rank cross layers

With `kind=mmoe`, late features and cross layers, this is Feed-SR's head (arXiv:2602.12354; the
number of cross layers and what precedes W are our choice). With a post feature, the last layer of
every part has P outputs per action, one for each row of the feature (CADET, arXiv:2602.11410):
logits_i = head_{b(i)}(h_i).
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.config import HeadConfig, ModelConfig
from ligr_jax.nn.calibration import HIGH, LOW, IsotonicCalibration
from ligr_jax.nn.cross import LowRankCross
from ligr_jax.nn.features import feature_width
from ligr_jax.nn.head_inputs import NO_INPUTS, HeadInputs, late_width, require_inputs, with_late
from ligr_jax.nn.mlp import mlp_flops
from ligr_jax.nn.multitask import PLE, MMoE, mmoe_flops, ple_flops
from ligr_jax.nn.mup import mup_scale
from ligr_jax.nn.towers import Towers, log_odds, output_logits


class Heads(nn.Module):
    """One logit per action from a token. Initial logits are the log-odds of base rates.

    adds: the logits are added to those of another head, so they start at zero.
    normed: the token is layer-normalized first.
    """

    config: ModelConfig
    adds: bool = False
    normed: bool = True

    @nn.compact
    def __call__(
        self, h: jax.Array, deterministic: bool = True, inputs: HeadInputs = NO_INPUTS
    ) -> jax.Array:
        """Return logits, float32 [..., A].

        Args:
            h: [..., D], the token.
            deterministic: if False, dropout is applied, which needs a `dropout` key.
            inputs: what the heads read in addition to the token.

        Raises:
            ValueError: `inputs` lacks features that the model declares for its heads.
        """
        c = self.config
        require_inputs(c, inputs)
        start = (0.0,) * len(c.actions) if self.adds else base_logits(c)
        x = with_late(h, inputs)
        x = nn.LayerNorm(dtype=jnp.float32, name="norm")(x) if self.normed else x
        logits = self._logits(x, start, deterministic, inputs.post)
        return logits + self._crossed(h, inputs) if c.head.cross_layers else logits

    def _logits(
        self, x: jax.Array, start: Sequence[float], deterministic: bool, post: jax.Array | None
    ) -> jax.Array:
        """Return the logits of the head without its cross layers."""
        c, head = self.config, self.config.head
        if head.kind == "linear":
            return output_logits(x / mup_scale(c).width, start, c.post_rows, post, name="logits")
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
            outputs=c.post_rows,
            name="towers",
        )
        result: jax.Array = towers(inputs, deterministic, post)
        return result

    def _crossed(self, h: jax.Array, inputs: HeadInputs) -> jax.Array:
        """Return the logits of the tower of cross layers."""
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        normed = nn.LayerNorm(dtype=jnp.float32, name="cross_norm")(h)
        x0 = with_late(normed, inputs).astype(dtype)
        x = x0
        for i in range(c.head.cross_layers):
            x = LowRankCross(rank=c.head.cross_rank, dtype=dtype, name=f"cross_{i}")(x0, x)
        start = (0.0,) * len(c.actions)
        return output_logits(x, start, c.post_rows, inputs.post, name="cross_logits")


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


def calibrated(
    config: ModelConfig,
    logits: jax.Array,
    parts: Mapping[str, jax.Array],
    post: jax.Array | None = None,
) -> jax.Array:
    """Apply an isotonic layer to logits if `model.head.calibration` is set.

    Must be called inside the `__call__` of a compact module, which then owns the layer.

    Args:
        config: the model.
        logits: [B, N, A].
        parts: item features by name, [B, N, width] each; see `feature_parts`.
        post: int32 [B, N], row of the post feature; None without one.

    Returns:
        float32 [B, N, A].
    """
    head = config.head
    if not head.calibration:
        return logits
    calibration = calibration_layer(config, name="calibration")
    result: jax.Array = calibration(logits, calibration_input(config, parts), post)
    return result


def calibration_layer(config: ModelConfig, name: str | None = None) -> IsotonicCalibration:
    """Return the isotonic layer of a model, with a curve for each row of its post feature."""
    return IsotonicCalibration(config.head.calibration_step, config.post_rows, name=name)


def calibration_input(config: ModelConfig, parts: Mapping[str, jax.Array]) -> jax.Array | None:
    """Return the features of the isotonic layer, [B, N, W]; None if it has none.

    Arguments are those of `calibrated`.
    """
    selected = [parts[name] for name in config.head.calibration_features]
    return jnp.concatenate(selected, axis=-1) if selected else None


def heads_flops(config: ModelConfig, width: int) -> int:
    """Return the FLOPs of the matrix products of `Heads` on one token [width]."""
    head, tasks = config.head, len(config.groups)
    outputs = len(config.actions) * config.post_rows
    width += late_width(config)
    cross = 4 * width * head.cross_rank * head.cross_layers
    cross += 2 * width * outputs * (head.cross_layers > 0)
    if head.kind == "linear":
        return 2 * width * outputs + cross
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
    return mixing + towers_flops(config, width) + cross


def towers_flops(config: ModelConfig, width: int) -> int:
    """Return the FLOPs of one tower per group, on inputs [width]."""
    head = config.head
    widths = head.widths if head.kind != "linear" else ()
    last = widths[-1] if widths else width
    each = mlp_flops(width, widths, head.gated)
    return len(config.groups) * each + 2 * last * len(config.actions) * config.post_rows


def calibration_flops(config: ModelConfig) -> int:
    """Return the FLOPs of `calibrated` on one impression: the map of calibration features."""
    head = config.head
    buckets = round((HIGH - LOW) / head.calibration_step)
    width = sum(
        feature_width(config, config.features[n]) - config.effects.get(config.table_of(n), 0)
        for n in head.calibration_features
    )
    return 2 * width * len(config.actions) * buckets
