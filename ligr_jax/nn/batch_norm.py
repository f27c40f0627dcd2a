"""Batch normalization of numeric features that may be missing (LiRank, 3.1 and 6.2)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

STATISTICS = "batch_stats"  # collection of variables: what a step updates without a gradient


class MaskedBatchNorm(nn.Module):
    """(x - mean) / sqrt(var + epsilon) * scale + bias, with statistics of what is there.

    As Flax's `BatchNorm` with a mask, but for features of which a batch may hold no value at all:
    Flax's statistics would be NaN for ever; here they stay as they were, and are used.
    """

    momentum: float = 0.99
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, there: jax.Array, deterministic: bool = True) -> jax.Array:
        """Normalized values, float32 like x, and zero where none is there.

        Args:
            x: [..., F]; anything, NaN too, where nothing is there.
            there: bool [..., F].
            deterministic: use the running statistics, and leave them.
        """
        width, axes = x.shape[-1:], tuple(range(x.ndim - 1))
        mean = self.variable(STATISTICS, "mean", jnp.zeros, width)
        var = self.variable(STATISTICS, "var", jnp.ones, width)
        scale = self.param("scale", nn.initializers.ones_init(), width, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), width, jnp.float32)
        x = jnp.where(there, x, 0.0).astype(jnp.float32)
        now_mean, now_var = mean.value, var.value
        if not deterministic:
            count = there.sum(axes).astype(jnp.float32)
            some = jnp.maximum(count, 1.0)
            of_batch = x.sum(axes) / some
            spread = (jnp.where(there, x - of_batch, 0.0) ** 2).sum(axes) / some
            now_mean = jnp.where(count > 0, of_batch, mean.value)
            now_var = jnp.where(count > 0, spread, var.value)
            if not self.is_initializing():
                mean.value += (1 - self.momentum) * (now_mean - mean.value)
                var.value += (1 - self.momentum) * (now_var - var.value)
        normal = (x - now_mean) * jax.lax.rsqrt(now_var + self.epsilon) * scale + bias
        return jnp.where(there, normal, 0.0)
