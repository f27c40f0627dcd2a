"""Batch normalization of numeric features that may be missing (LiRank, 3.1 and 6.2)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

STATISTICS = "batch_stats"  # variable collection that a step updates without a gradient


class MaskedBatchNorm(nn.Module):
    """(x - mean) / sqrt(var + epsilon) * scale + bias, with statistics of the valid values only.

    This is Flax's `BatchNorm` with a mask, except for a feature without any valid value in a batch:
    Flax's statistics would become NaN and stay NaN; here the running statistics are used and kept.

    momentum: share of the running statistics that a step keeps.
    epsilon: added to the variance.
    """

    momentum: float = 0.99
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array, deterministic: bool = True) -> jax.Array:
        """Return normalized values, float32 [..., F]; zero where invalid.

        Args:
            x: [..., F]; any value, even NaN, where invalid.
            valid: bool [..., F].
            deterministic: use the running statistics and do not update them.
        """
        width = x.shape[-1:]
        axes = tuple(range(x.ndim - 1))
        mean = self.variable(STATISTICS, "mean", jnp.zeros, width)
        var = self.variable(STATISTICS, "var", jnp.ones, width)
        scale = self.param("scale", nn.initializers.ones_init(), width, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), width, jnp.float32)
        x = jnp.where(valid, x, 0.0).astype(jnp.float32)
        used_mean, used_var = mean.value, var.value
        if not deterministic:
            count = valid.sum(axes).astype(jnp.float32)
            divisor = jnp.maximum(count, 1.0)
            batch_mean = x.sum(axes) / divisor
            batch_var = (jnp.where(valid, x - batch_mean, 0.0) ** 2).sum(axes) / divisor
            used_mean = jnp.where(count > 0, batch_mean, mean.value)
            used_var = jnp.where(count > 0, batch_var, var.value)
            if not self.is_initializing():
                mean.value += (1 - self.momentum) * (used_mean - mean.value)
                var.value += (1 - self.momentum) * (used_var - var.value)
        normalized = (x - used_mean) * jax.lax.rsqrt(used_var + self.epsilon) * scale + bias
        return jnp.where(valid, normalized, 0.0)
