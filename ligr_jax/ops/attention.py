"""`attend`: the one door to attention. Fast kernels stand behind it, models in front of it."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from ligr_jax.ops.masks import Mask, dense_mask

Activation = Literal["softmax", "silu", "sigmoid"]
Implementation = Literal["auto", "dense"]


class RelativeBias(NamedTuple):
    """A learned bias added to scores by bucketed distance, e.g. in sessions or hours.

    table: float32 [H, buckets]; place: [B, T], where each token stands on the axis of distance.
    """

    table: jax.Array
    place: jax.Array


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: Mask,
    *,
    activation: Activation = "softmax",
    bias: RelativeBias | None = None,
    implementation: Implementation = "auto",
) -> jax.Array:
    """Attention over exactly the pairs `mask` allows.

        scores = q k^T / sqrt(K) + bias
        softmax: softmax over the allowed keys;  silu, sigmoid: activation(scores) / allowed keys

    The un-normalized activations are divided by the number of allowed keys, so that their scale
    does not grow with history (HSTU divides by the sequence length; LiGR A.1 compares them). Scores
    and their normalization are float32 whatever the inputs' type. Padding gives zeros, and no
    gradient.

    Args:
        q, k, v: [B, T, H, K].
        implementation: `dense` materializes B x H x T x T scores; `auto` picks for the device.

    Returns:
        [B, T, H, K], in q's type.
    """
    del implementation  # one so far
    return _attend_dense(q, k, v, mask, activation, bias)


def bucket_distance(distance: jax.Array, buckets: int) -> jax.Array:
    """Buckets 0..buckets-1 of non-negative distances: exact below buckets/2, then logarithmic.

    The logarithmic half reaches its last bucket at distance 2^12.
    """
    exact = buckets // 2
    d = jnp.maximum(distance.astype(jnp.float32), 0.0)
    span = jnp.log2(jnp.maximum(d, exact) / exact) / jnp.log2(4096 / exact)
    far = exact + (span * (buckets - exact)).astype(jnp.int32)
    return jnp.where(d < exact, d.astype(jnp.int32), jnp.minimum(far, buckets - 1))


def _attend_dense(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: Mask,
    activation: Activation,
    bias: RelativeBias | None,
) -> jax.Array:
    scores = jnp.einsum("BTHK,BSHK->BHTS", q, k, preferred_element_type=jnp.float32)
    scores = scores * (q.shape[-1] ** -0.5)
    if bias is not None:
        apart = bias.place[:, :, None] - bias.place[:, None, :]
        bucket = bucket_distance(jnp.abs(apart), bias.table.shape[-1])
        scores = scores + jnp.moveaxis(bias.table[:, bucket], 0, 1)
    allowed = dense_mask(mask)[:, None]
    if activation == "softmax":
        weights = jax.nn.softmax(jnp.where(allowed, scores, -jnp.inf), axis=-1)
    else:
        shaped = jax.nn.silu(scores) if activation == "silu" else jax.nn.sigmoid(scores)
        weights = jnp.where(allowed, shaped, 0.0) / allowed.sum(-1, keepdims=True)
    weights = jnp.where(mask.valid[:, None, :, None], weights, 0.0)
    out = jnp.einsum("BHTS,BSHK->BTHK", weights.astype(v.dtype), v)
    return out.astype(q.dtype)
