"""Calibration trained with the model: a monotone map of each action's logit (LiRank, 3.4)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.nn.linear import Linear
from ligr_jax.ops.isotonic import isotonic_map

LOW, HIGH = -17.0, 8.0  # logits beyond are clipped


class IsotonicCalibration(nn.Module):
    """f(y) + b, f an `isotonic_map` with slopes relu(e + w); initially (w 1, e, b 0) the identity.

    Whatever was learned, it never turns the order of two logits round: it may only tie them. The
    slopes e + w are an action's own. Where calibration features are given, e is a linear map of
    them, zero at first, so that impressions alike in these features share a curve; it takes
    K numbers per logit. Without them nothing larger than [A, K] is made.

    step: width of a bucket, in logits; there are K = (HIGH - LOW) / step.
    """

    step: float = 0.5

    @nn.compact
    def __call__(self, logits: jax.Array, features: jax.Array | None = None) -> jax.Array:
        """logits: [..., A]; features: [..., C] or None. Returns float32 [..., A]."""
        actions, buckets = logits.shape[-1], round((HIGH - LOW) / self.step)
        init = nn.initializers.ones_init()
        slopes = self.param("slopes", init, (actions, buckets), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (actions,), jnp.float32)
        curve = jnp.arange(actions)
        if features is not None:
            zeros = nn.initializers.zeros_init()
            e = Linear(actions * buckets, kernel_init=zeros, name="features")(features)
            slopes = slopes + e.reshape(*logits.shape, buckets)
            curve = jnp.arange(logits.size).reshape(logits.shape)
        heights = nn.relu(slopes).reshape(-1, buckets)
        return isotonic_map(logits, heights, LOW, (HIGH - LOW) / buckets, curve) + bias
