"""Calibration trained with the model: a monotone map of each action's logit (LiRank, 3.4)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.nn.linear import Linear
from ligr_jax.ops.isotonic import isotonic_map

LOW, HIGH = -17.0, 8.0  # logits are clipped to this range


class IsotonicCalibration(nn.Module):
    """f(y) + b with a piecewise linear f of slopes relu(e + w); initially the identity.

    w [A, K] and b [A] are parameters that start at 1 and 0. With calibration features, e is a
    linear map of them that starts at zero, so impressions with equal features share a curve; it
    takes K numbers per logit. Without features, e = 0 and no array is larger than [A, K].

    f is non-decreasing whatever is learned: it can tie two logits but never swap them. See
    `ligr_jax.ops.isotonic`.

    step: width of a bucket, in logits; there are K = (HIGH - LOW) / step buckets.
    rows: P, number of curves of an action, e.g. one for each bucket of the display position.
    """

    step: float = 0.5
    rows: int = 1

    @nn.compact
    def __call__(
        self,
        logits: jax.Array,
        features: jax.Array | None = None,
        row: jax.Array | None = None,
    ) -> jax.Array:
        """Return calibrated logits, float32 [..., A].

        Args:
            logits: [..., A].
            features: [..., C], calibration features, or None.
            row: int [...], in 0..P-1, the curve of each impression; None stands for P = 1.
        """
        actions = logits.shape[-1]
        buckets = round((HIGH - LOW) / self.step)
        init = nn.initializers.ones_init()
        curves = self.rows * actions
        slopes = self.param("slopes", init, (curves, buckets), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (curves,), jnp.float32)
        curve = jnp.arange(actions)
        if row is not None:
            curve = curve + actions * row[..., None]
            bias = bias[curve]
        if features is not None:
            zeros = nn.initializers.zeros_init()
            e = Linear(actions * buckets, kernel_init=zeros, name="features")(features)
            slopes = slopes[curve] + e.reshape(*logits.shape, buckets)
            curve = jnp.arange(logits.size).reshape(logits.shape)
        slopes = nn.relu(slopes).reshape(-1, buckets)
        return isotonic_map(logits, slopes, LOW, (HIGH - LOW) / buckets, curve) + bias
