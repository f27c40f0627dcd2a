"""Activations of attention, and the relative bias that is added to scores."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

Activation = Literal["softmax", "silu", "sigmoid"]

# A score below all others. It is finite, so that the difference of two of them is 0 and not NaN.
LOWEST = -1e30


class RelativeBias(NamedTuple):
    """A learned bias added to scores by bucketed distance, e.g. in sessions or hours.

    table: float32 [R, buckets], with R a multiple of the G key heads, and the H query heads a
        multiple of R: consecutive groups of H / R query heads share a row.
    position: [B, T], the coordinate of each token on the axis of distance.
    """

    table: jax.Array
    position: jax.Array


def bias_scores(table: jax.Array, position: jax.Array, key_position: jax.Array) -> jax.Array:
    """Return the bias of every pair of a query and a key.

    Args:
        table: float32 [H, buckets].
        position: [..., T], coordinates of queries.
        key_position: [..., S], coordinates of keys.

    Returns:
        float32 [..., H, T, S].
    """
    distance = jnp.abs(position[..., :, None] - key_position[..., None, :])
    bucket = bucket_distance(distance, table.shape[-1])
    return jnp.moveaxis(table[:, bucket], 0, -3)


def bucket_distance(distance: jax.Array, buckets: int) -> jax.Array:
    """Return the bucket of each distance: exact below buckets / 2, logarithmic above.

    The logarithmic half reaches its last bucket at distance 2^12 = 4096.

    Args:
        distance: int or float [...], non-negative; fractions are rounded down.
        buckets: number of buckets.

    Returns:
        int32 [...] in 0..buckets-1.
    """
    exact = buckets // 2
    d = jnp.maximum(distance.astype(jnp.float32), 0.0)
    span = jnp.log2(jnp.maximum(d, exact) / exact) / jnp.log2(4096 / exact)
    far = exact + (span * (buckets - exact)).astype(jnp.int32)
    return jnp.where(d < exact, d.astype(jnp.int32), jnp.minimum(far, buckets - 1))
