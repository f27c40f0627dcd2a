"""Isotonic regression that trains with a model: a monotone piecewise linear map of logits.

With k the bucket of y, counted from `low` in buckets of width `step`, and one slope per bucket:

    f(y) = low + sum_{i < k} slope_i step + slope_k (y - low - step k)

LiRank, 3.4, eq. 1. The printed equation is undefined for y <= 0; here logits are clipped to
[low, low + K step] and buckets start at `low`. With all slopes 1, f is the identity on that range.
"""

import jax
import jax.numpy as jnp


def isotonic_map(
    y: jax.Array, slopes: jax.Array, low: float, step: float, curve: jax.Array | int = 0
) -> jax.Array:
    """Return f(y) elementwise: a cumulative sum per curve and one look-up per logit.

    Args:
        y: float [...], logits.
        slopes: float [R, K], non-negative: R curves of K buckets each.
        low: lower end of the first bucket, in logits.
        step: width of a bucket, in logits.
        curve: int, broadcastable to the shape of `y`: which of the R curves to apply.

    Returns:
        float32 [...], non-decreasing in y along each curve; constant outside the buckets.
    """
    buckets = slopes.shape[-1]
    offset = (jnp.clip(y.astype(jnp.float32), low, low + step * buckets) - low) / step
    k = jnp.minimum(offset.astype(jnp.int32), buckets - 1)
    index = k + buckets * jnp.asarray(curve)
    previous = jnp.cumsum(slopes, axis=-1) - slopes  # sum over the buckets below
    return low + step * (previous.ravel()[index] + slopes.ravel()[index] * (offset - k))
