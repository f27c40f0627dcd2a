"""What is added to scores, a relative bias, and what is made of them, a kind of weights."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

Activation = Literal["softmax", "silu", "sigmoid"]


class RelativeBias(NamedTuple):
    """A learned bias added to scores by bucketed distance, e.g. in sessions or hours.

    table: float32 [H, buckets].
    place: [B, T], where each query stands on the axis of distance.
    key_place: [B, S], where each key stands; None: keys and queries are the same tokens.
    """

    table: jax.Array
    place: jax.Array
    key_place: jax.Array | None = None


def bias_scores(table: jax.Array, place: jax.Array, key_place: jax.Array) -> jax.Array:
    """Scores [..., H, T, S] of queries at `place` [..., T] and keys at `key_place` [..., S]."""
    apart = jnp.abs(place[..., :, None] - key_place[..., None, :])
    bucket = bucket_distance(apart, table.shape[-1])
    return jnp.moveaxis(table[:, bucket], 0, -3)


def bucket_distance(distance: jax.Array, buckets: int) -> jax.Array:
    """Buckets 0..buckets-1 of non-negative distances: exact below buckets/2, then logarithmic.

    The logarithmic half reaches its last bucket at distance 2^12.
    """
    exact = buckets // 2
    d = jnp.maximum(distance.astype(jnp.float32), 0.0)
    span = jnp.log2(jnp.maximum(d, exact) / exact) / jnp.log2(4096 / exact)
    far = exact + (span * (buckets - exact)).astype(jnp.int32)
    return jnp.where(d < exact, d.astype(jnp.int32), jnp.minimum(far, buckets - 1))
