"""The gated pre-norm block of LiGR (3.2, figure 3), and a stack of them.

h <- h + MHA(LN(h)) * sigmoid(h W_1)
h <- h + FFN(LN(h)) * sigmoid(h W_2)

What is added to h, and the scores of attention, have multipliers that are 1 unless learning rates
are to transfer (`ligr_jax.nn.mup`).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.config import ModelConfig
from ligr_jax.nn.linear import Linear
from ligr_jax.nn.mup import mup_scale
from ligr_jax.ops.attention import RelativeBias, attend
from ligr_jax.ops.masks import Mask

RELATIVE_BUCKETS = 32


class Gated(nn.Module):
    """h + scale * sublayer(LN(h)) * sigmoid(h W): the gate reads the residual stream, D x D, no
    bias."""

    config: ModelConfig
    scale: float = 1.0

    @nn.compact
    def __call__(
        self, h: jax.Array, sublayer: Callable[[jax.Array], jax.Array], deterministic: bool
    ) -> jax.Array:
        dtype = jnp.dtype(self.config.dtype)
        out = sublayer(nn.LayerNorm(dtype=dtype, name="norm")(h))
        if self.config.gate == "sigmoid":
            out *= nn.sigmoid(Linear(self.config.width, dtype=dtype, name="gate")(h))
        out = nn.Dropout(self.config.dropout)(out, deterministic=deterministic)
        return h + self.scale * out


class Attention(nn.Module):
    """Multi-head attention over the pairs of a mask, with an optional relative bias."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array, mask: Mask, place: jax.Array | None) -> jax.Array:
        """x: [B, T, D]; place: [B, T], the axis of the relative bias, or None without one."""
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        qkv = Linear(3 * c.width, dtype=dtype, name="qkv")(x)
        q, k, v = jnp.moveaxis(qkv.reshape(*x.shape[:-1], 3, c.heads, -1), -3, 0)
        q /= mup_scale(c).head_width ** 0.5
        bias = relative_bias(self, c, place)
        out = attend(
            q, k, v, mask, activation=c.attention, bias=bias, implementation=c.implementation
        )
        return Linear(c.width, dtype=dtype, name="out")(out.reshape(x.shape))


def relative_bias(
    module: nn.Module, config: ModelConfig, place: jax.Array | None
) -> RelativeBias | None:
    """The parameter `bias` of a layer, a table that starts at zero; None without a place."""
    if place is None:
        return None
    shape = (config.heads, RELATIVE_BUCKETS)
    table = module.param("bias", nn.initializers.zeros_init(), shape, jnp.float32)
    return RelativeBias(table, place)


class FeedForward(nn.Module):
    """D -> F -> D with GELU, or SwiGLU: (silu(x U) * x V) W."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        hidden = Linear(c.ffn_width, use_bias=c.ffn == "gelu", dtype=dtype, name="up")(x)
        if c.ffn == "gelu":
            hidden = nn.gelu(hidden)
        else:
            hidden = nn.silu(hidden) * Linear(c.ffn_width, dtype=dtype, name="value")(x)
        return Linear(c.width, use_bias=c.ffn == "gelu", dtype=dtype, name="down")(hidden)


class Block(nn.Module):
    """One layer: gated attention, then gated feed-forward; `scale` of both."""

    config: ModelConfig
    scale: float = 1.0

    @nn.compact
    def __call__(
        self, h: jax.Array, mask: Mask, place: jax.Array | None, deterministic: bool
    ) -> tuple[jax.Array, None]:
        c, scale = self.config, self.scale
        attention = Attention(c, name="attention")
        h = Gated(c, scale, name="gated_attention")(
            h, lambda x: attention(x, mask, place), deterministic
        )
        if c.ffn != "none":
            h = Gated(c, scale, name="gated_ffn")(h, FeedForward(c, name="ffn"), deterministic)
        return h, None  # a scan's carry and (empty) output


class Stack(nn.Module):
    """`depth` blocks in one parameter layout [depth, ...], scanned or unrolled alike.

    Scanning keeps compile time flat in depth; on CPU it costs 16-60 % of a step, so there `auto`
    unrolls. A checkpoint serves either.

    block: the kind of layer, with the fields and the signature of `Block`.
    """

    config: ModelConfig
    depth: int
    scale: float = 1.0
    block: type[nn.Module] = Block

    @nn.compact
    def __call__(
        self, h: jax.Array, mask: Mask, place: jax.Array | None, deterministic: bool
    ) -> jax.Array:
        c = self.config
        unrolled = c.unroll == "yes" or (c.unroll == "auto" and jax.default_backend() == "cpu")
        block = self.block
        if c.remat:
            block = nn.remat(block, prevent_cse=unrolled, static_argnums=(4,))
        layers = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(nn.broadcast, nn.broadcast, nn.broadcast),
            length=self.depth,
            unroll=self.depth if unrolled else 1,
        )(c, self.scale, name="layers")
        return layers(h, mask, place, deterministic)[0]
