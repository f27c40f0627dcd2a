"""Multi-layer perceptrons with gated hidden layers (LiRank, 3.5)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.nn.linear import Linear


class MLP(nn.Module):
    """Hidden layers h = relu(W x + b), followed by h * sigmoid(G h + c) if gated.

    The gate is that of GateNet's hidden layers (Huang et al. 2020, arXiv:2007.03519), with square
    G. Like W it is initialized by lecun_normal, so gates start about half open. LiRank's large MLP
    has the widths (3500,) * 4.

    widths: of the layers, in order; the last is the width of the output. Empty: the identity.
    """

    widths: Sequence[int]
    gated: bool = False
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool = True) -> jax.Array:
        """Return [..., last width], for x [..., D]."""
        for i, width in enumerate(self.widths):
            x = nn.relu(Linear(width, use_bias=True, dtype=self.dtype, name=f"layer_{i}")(x))
            if self.gated:
                gate = Linear(width, use_bias=True, dtype=self.dtype, name=f"gate_{i}")
                x = x * nn.sigmoid(gate(x))
            x = nn.Dropout(self.dropout)(x, deterministic=deterministic)
        return x


def mlp_flops(width: int, widths: Sequence[int], gated: bool) -> int:
    """Return the FLOPs of the matrix products of an `MLP` on one example [width]."""
    total = 0
    for out in widths:
        total += 2 * width * out + 2 * out * out * gated
        width = out
    return total
