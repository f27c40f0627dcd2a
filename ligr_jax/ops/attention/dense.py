"""The reference: every score is computed, then masked. For tests, and for short rows."""

import jax
import jax.numpy as jnp

from ligr_jax.ops.attention.scores import Activation, RelativeBias, bias_scores
from ligr_jax.ops.masks import Mask, allowed_keys, dense_mask


def attend_dense(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: Mask,
    activation: Activation,
    bias: RelativeBias | None,
) -> jax.Array:
    """`attend` with B x H x T x T scores; differentiable in every way."""
    group = q.shape[2] // k.shape[2]
    k, v = (jnp.repeat(x, group, axis=2) for x in (k, v))
    scores = jnp.einsum("BTHK,BSHK->BHTS", q, k, preferred_element_type=jnp.float32)
    scores = scores * (q.shape[-1] ** -0.5)
    if bias is not None:
        scores = scores + bias_scores(bias.table, bias.place, bias.place)
    allowed = dense_mask(mask)[:, None]
    if activation == "softmax":
        weights = jax.nn.softmax(jnp.where(allowed, scores, -jnp.inf), axis=-1)
    else:
        shaped = jax.nn.silu(scores) if activation == "silu" else jax.nn.sigmoid(scores)
        keys = jnp.maximum(allowed_keys(mask), 1)[:, None, :, None]
        weights = jnp.where(allowed, shaped, 0.0) / keys
    weights = jnp.where(mask.valid[:, None, :, None], weights, 0.0)
    out = jnp.einsum(
        "BHTS,BSHK->BTHK", weights.astype(v.dtype), v, preferred_element_type=jnp.float32
    )
    return out.astype(q.dtype)
