"""Sparse experts per token: each of the M tokens of an impression has X gated networks of its own.

    y_m = X / k sum_j G_mj E_mj(x_m) + S_m(x_m),   G_m = softmax over the k largest of x_m R_m

TokenMixer-Large (arXiv:2602.06563). The factor X / k is the inverse of the sparsity; S_m is a
shared expert that every input passes. The router R starts at zero. Training and serving choose
experts in the same way, without noise, capacity or a balancing loss, so a token depends on no other
row. Only the chosen experts are computed (`ligr_jax.ops.grouped`).
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.config import ModelConfig
from ligr_jax.nn.experts import GroupedLinear, mix, top_softmax
from ligr_jax.nn.mup import mup_scale
from ligr_jax.nn.per_token import PerTokenGLU, PerTokenLinear, fan_in_normal


class PerTokenExperts(nn.Module):
    """The sum of `chosen` of X experts of width F / X, and of a shared one of the same width."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return [..., M, D] in the dtype of the model, for x [..., M, D]."""
        c, mixer = self.config, self.config.tokenmixer
        dtype = jnp.dtype(c.dtype)
        m, width = x.shape[-2:]
        hidden = c.ffn_width // mixer.experts
        shared = PerTokenGLU(hidden, down_init=mixer.down_init, dtype=dtype, name="shared")

        # The router is computed in float32. Expert j of token m has number m X + j.
        zeros = nn.initializers.zeros_init()
        router = PerTokenLinear(mixer.experts, kernel_init=zeros, name="router")
        weights, choice = top_softmax(
            router(x.astype(jnp.float32) / mup_scale(c).width), mixer.chosen
        )
        expert = (choice + mixer.experts * jnp.arange(m)[:, None]).reshape(-1)

        # One row for each chosen expert of a token.
        rows_nD = jnp.repeat(x.reshape(-1, width), mixer.chosen, axis=0)
        count = m * mixer.experts
        up, value = (
            GroupedLinear(count=count, features=hidden, dtype=dtype, name=name)
            for name in ("up", "value")
        )
        down = GroupedLinear(
            count=count,
            features=width,
            dtype=dtype,
            kernel_init=fan_in_normal(mixer.down_init),
            name="down",
        )
        out_nD = down(nn.silu(up(rows_nD, expert)) * value(rows_nD, expert), expert)
        sparse = mix(weights, out_nD.reshape(*choice.shape, width))
        y: jax.Array = shared(x) + (mixer.experts / mixer.chosen) * sparse
        return y


def per_token_experts_flops(config: ModelConfig) -> int:
    """Return the FLOPs of `PerTokenExperts` on one token.

    Only the chosen experts, their weighted sum, the shared expert and the router count, without the
    padding of `ligr_jax.ops.grouped`.
    """
    mixer = config.tokenmixer
    hidden = config.ffn_width // mixer.experts
    networks = (mixer.chosen + 1) * 6 * config.width * hidden
    return networks + 2 * config.width * (mixer.experts + mixer.chosen)
