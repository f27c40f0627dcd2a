"""The gated pre-norm block of LiGR (3.2, figure 3), and a stack of blocks.

h <- h + MHA(LN(h)) * sigmoid(h W_1)
h <- h + FFN(LN(h)) * sigmoid(h W_2)

Two options are of LinkedIn's later rankers: gates inside attention (`ligr_jax.nn.self_gating`), and
`model.residual_scale`, a learned factor of each branch that starts at 1. The latter is our reading
of "RescaleAndAdd" of Feed-SR (arXiv:2602.12354).

What is added to h, and the scores of attention, have multipliers that differ from 1 only if
learning rates are to transfer between sizes (`ligr_jax.nn.mup`).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.config import ModelConfig
from ligr_jax.nn.linear import Linear
from ligr_jax.nn.mup import RESIDUAL_SCALE, mup_scale
from ligr_jax.nn.self_gating import SelfGate
from ligr_jax.ops.attention import (
    Activation,
    KeyValues,
    Past,
    RelativeBias,
    attend,
    attend_cached,
)
from ligr_jax.ops.masks import Mask

RELATIVE_BUCKETS = 32


class Gated(nn.Module):
    """h + scale * alpha * sublayer(LN(h)) * sigmoid(h W), with W [D, D] and no bias.

    The gate reads the residual stream h itself, not LN(h). The factor alpha is a parameter with
    `model.residual_scale`, and 1 without.
    """

    config: ModelConfig
    scale: float = 1.0

    @nn.compact
    def __call__(
        self, h_BTD: jax.Array, sublayer: Callable[[jax.Array], jax.Array], deterministic: bool
    ) -> jax.Array:
        dtype = jnp.dtype(self.config.dtype)
        out_BTD = sublayer(nn.LayerNorm(dtype=dtype, name="norm")(h_BTD))
        if self.config.gates_branches:
            out_BTD *= nn.sigmoid(Linear(self.config.width, dtype=dtype, name="gate")(h_BTD))
        if self.config.residual_scale:
            alpha = self.param(RESIDUAL_SCALE, nn.initializers.ones_init(), (), jnp.float32)
            out_BTD *= alpha.astype(dtype)
        out_BTD = nn.Dropout(self.config.dropout)(out_BTD, deterministic=deterministic)
        result: jax.Array = h_BTD + self.scale * out_BTD
        return result


class Attention(nn.Module):
    """Multi-head attention over the pairs of a mask, with an optional relative bias."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        mask: Mask | None,
        position: jax.Array | None,
        past: Past | None = None,
    ) -> tuple[jax.Array, KeyValues]:
        """Return [B, T, D], and the keys and values of the tokens.

        Args:
            x_BTD: [B, T, D].
            mask: the allowed pairs of T tokens; None, with a past only: each sees itself.
            position: [B, T], coordinates of the relative bias; None for attention without one.
            past: a history that the tokens see as well.
        """
        c = self.config
        dtype = jnp.dtype(c.dtype)
        q_BTHK, k_BTHK, v_BTHK = project_qkv(c, x_BTD)
        new = KeyValues(k_BTHK, v_BTHK)
        bias = relative_bias(self, c, position)
        out_BTHK = attend_new(c, q_BTHK, new, mask, past, activation=c.attention, bias=bias)
        return Linear(c.width, dtype=dtype, name="out")(out_BTHK.reshape(x_BTD.shape)), new


def project_qkv(config: ModelConfig, x_BTD: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Create the projections of attention in the calling module, and return their results.

    Args:
        config: gives the gates of attention and the factor of the scores.
        x_BTD: [B, T, D].

    Returns:
        Queries, keys and values, [B, T, H, K] each.
    """
    c = config
    if c.gates_attention:
        x_BTD = SelfGate(c, name="input_gate")(x_BTD)
    qkv = Linear(3 * c.width, dtype=jnp.dtype(c.dtype), name="qkv")(x_BTD)
    qkv = qkv.reshape(*x_BTD.shape[:-1], 3, c.heads, -1)
    q_BTHK, k_BTHK, v_BTHK = jnp.moveaxis(qkv, -3, 0)
    if c.gates_attention:
        q_BTHK = SelfGate(c, name="query_gate")(q_BTHK)
        k_BTHK = SelfGate(c, name="key_gate")(k_BTHK)
    return q_BTHK / mup_scale(c).head_width ** 0.5, k_BTHK, v_BTHK


def attend_new(
    config: ModelConfig,
    q_BTHK: jax.Array,
    new: KeyValues,
    mask: Mask | None,
    past: Past | None,
    *,
    activation: Activation,
    bias: RelativeBias | None,
) -> jax.Array:
    """Attend within a row, or from new tokens to a past and to each other; [B, T, H, K].

    Args:
        config: gives the implementation of attention within a row.
        q_BTHK: [B, T, H, K], queries.
        new: keys and values of the same tokens.
        mask, past: as in `Attention`.
        activation, bias: as in `attend`.
    """
    if past is not None:
        return attend_cached(q_BTHK, *new, past, mask, activation=activation, bias=bias)
    if mask is None:
        raise ValueError("mask=None needs a past; give the mask of the tokens")
    return attend(
        q_BTHK,
        *new,
        mask,
        activation=activation,
        bias=bias,
        implementation=config.implementation,
    )


def relative_bias(
    module: nn.Module, config: ModelConfig, position: jax.Array | None
) -> RelativeBias | None:
    """Create the parameter `bias` of a layer, a zero table [H, buckets], and return the bias.

    Args:
        module: the layer that owns the parameter.
        config: gives the number of heads.
        position: [B, T], coordinates of the tokens; None: no parameter is created.

    Returns:
        The relative bias, or None without coordinates.
    """
    if position is None:
        return None
    shape = (config.heads, RELATIVE_BUCKETS)
    table = module.param("bias", nn.initializers.zeros_init(), shape, jnp.float32)
    return RelativeBias(table=table, position=position)


class FeedForward(nn.Module):
    """D -> F -> D with GELU, or with SwiGLU: (silu(x U) * x V) W."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        c = self.config
        dtype = jnp.dtype(c.dtype)
        use_bias = c.ffn == "gelu"
        hidden_BTF = Linear(c.ffn_width, use_bias=use_bias, dtype=dtype, name="up")(x_BTD)
        if c.ffn == "gelu":
            hidden_BTF = nn.gelu(hidden_BTF)
        else:
            value = Linear(c.ffn_width, dtype=dtype, name="value")
            hidden_BTF = nn.silu(hidden_BTF) * value(x_BTD)
        return Linear(c.width, use_bias=use_bias, dtype=dtype, name="down")(hidden_BTF)


class Block(nn.Module):
    """One layer: gated attention, then gated feed-forward; `scale` multiplies both."""

    config: ModelConfig
    scale: float = 1.0

    @nn.compact
    def __call__(
        self,
        h_BTD: jax.Array,
        mask: Mask | None,
        position: jax.Array | None,
        deterministic: bool,
        past: Past | None = None,
        keep: bool = False,
    ) -> tuple[jax.Array, KeyValues | None]:
        """Return the carry and the output of a scan over layers.

        Args:
            h_BTD: [B, T, D], the residual stream.
            mask, position, past: as in `Attention`.
            deterministic: if False, dropout is applied, which needs a `dropout` key.
            keep: whether to return keys and values.

        Returns:
            The new residual stream [B, T, D]; and the keys and values of the tokens, or None.
        """
        c = self.config
        attention = Attention(c, name="attention")
        kept: list[KeyValues] = []

        def attended(x_BTD: jax.Array) -> jax.Array:
            out_BTD, new = attention(x_BTD, mask, position, past)
            kept.append(new)
            return out_BTD

        gated = Gated(c, scale=self.scale, name="gated_attention")
        h_BTD = gated(h_BTD, attended, deterministic)
        if c.ffn != "none":
            ffn = FeedForward(c, name="ffn")
            gated = Gated(c, scale=self.scale, name="gated_ffn")
            h_BTD = gated(h_BTD, ffn, deterministic)
        return h_BTD, kept[0] if keep else None


class Stack(nn.Module):
    """`depth` blocks whose parameters are stacked, [depth, ...], whether scanned or unrolled.

    Scanning keeps compile time constant in depth. On CPU it costs 16-60 % of a step, so `auto`
    unrolls there. Checkpoints can be used either way.

    block: the class of a layer, with the fields and the signature of `Block`.
    """

    config: ModelConfig
    depth: int
    scale: float = 1.0
    block: type[nn.Module] = Block

    @nn.compact
    def __call__(
        self,
        h_BTD: jax.Array,
        mask: Mask | None,
        position: jax.Array | None,
        deterministic: bool,
        past: Past | None = None,
        keep: bool = False,
    ) -> tuple[jax.Array, KeyValues | None]:
        """Return [B, T, D], and the keys and values of all layers, [depth, B, T, H, K] each.

        Arguments as of `Block`; `past.kept` has the axis `depth` as well.
        """
        c = self.config
        unrolled = c.unroll == "yes" or (c.unroll == "auto" and jax.default_backend() == "cpu")
        block = self.block
        if c.remat:
            block = nn.remat(block, prevent_cse=unrolled, static_argnums=(4, 6))
        of_past: Any = nn.broadcast
        if past is not None:  # each layer has its own keys and values
            of_past = Past(kept=0, length=nn.broadcast, position=nn.broadcast)  # type: ignore[arg-type]
        layers = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(nn.broadcast, nn.broadcast, nn.broadcast, of_past, nn.broadcast),
            length=self.depth,
            unroll=self.depth if unrolled else 1,
        )(c, scale=self.scale, name="layers")
        result: tuple[jax.Array, KeyValues | None] = layers(
            h_BTD, mask, position, deterministic, past, keep
        )
        return result
