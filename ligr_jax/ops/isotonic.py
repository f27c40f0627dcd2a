"""A monotone piecewise linear map of logits: isotonic regression that trains with a model.

With k the bucket of y, of width `step`, counted from `low`, and a slope for every bucket:

    f(y) = low + sum_{i < k} slope_i step + slope_k (y - low - step k)

LiRank, 3.4, eq. 1. As printed it is undefined for y <= 0; here logits are clipped to
[low, low + K step] and counted from `low`. Slopes of 1 give the identity between the ends.
"""

import jax
import jax.numpy as jnp


def isotonic(
    y: jax.Array, slopes: jax.Array, low: float, step: float, curve: jax.Array | int = 0
) -> jax.Array:
    """f(y), elementwise: a running sum of each curve and one look-up for each y.

    Args:
        y: float [...], logits.
        slopes: float [R, K], not negative: R curves of K buckets.
        curve: int, broadcastable to y's shape: which of the R curves is applied.

    Returns:
        float32 [...]; not decreasing in y on one curve. Beyond the ends it is constant.
    """
    buckets = slopes.shape[-1]
    above = (jnp.clip(y.astype(jnp.float32), low, low + step * buckets) - low) / step
    k = jnp.minimum(above.astype(jnp.int32), buckets - 1)
    place = k + buckets * jnp.asarray(curve)
    full = jnp.cumsum(slopes, axis=-1) - slopes  # the buckets before each
    return low + step * (full.ravel()[place] + slopes.ravel()[place] * (above - k))
