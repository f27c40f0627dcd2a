"""The self-gated attention of CADET (LinkedIn 2026, arXiv:2602.11410), `model.gate=cadet`.

    X~ = X * sigmoid(X W_x)           input of the projections; X is LN(h)
    Q~ = Q * sigmoid(Q W_q)           likewise K~; Q, K and V are projections of X~

The three matrices are [D, D] without a bias, and D is the width of all heads together. V and the
residual branch have no gate; `model.gate=both` adds LiGR's gates of the branches.

The paper publishes neither the initial values nor the place of the norm. Here the matrices start
like LiGR's gates, so that each gate starts near 1/2 and scores near 1/16 of those without gates.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.config import ModelConfig
from ligr_jax.nn.linear import Linear


class SelfGate(nn.Module):
    """x * sigmoid(x W), with W [D, D] and no bias."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return an array like x, whose last axis or axes [.., H, K] have D = H K elements.

        Args:
            x: [B, T, D] or [B, T, H, K].
        """
        c = self.config
        flat_BTD = x.reshape(*x.shape[:2], c.width)
        gate = Linear(c.width, dtype=jnp.dtype(c.dtype), name="gate")
        return x * nn.sigmoid(gate(flat_BTD)).reshape(x.shape)
