"""Attention for serving: the history is encoded once, and every candidate attends to it."""

import jax
import jax.numpy as jnp

from ligr_jax.ops.attention.scores import Activation, RelativeBias, bias_scores


def attend_cached(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    length: jax.Array,
    *,
    activation: Activation = "softmax",
    bias: RelativeBias | None = None,
) -> jax.Array:
    """What `attend` gives for candidates that form a new session after a cached history.

    A candidate sees the whole history and itself, no other candidate: the historical mask, whose
    ranges are all the same here.

    Args:
        q: [B, C, H, K]; k, v: [B, C, G, K], of the candidates.
        keys, values: [B, S, G, K], of the history, padded at its end.
        length: int32 [B], tokens of history; the rest of S is padding.
        bias: with `key_place` [B, S] of the history.

    Returns:
        [B, C, H, K], in q's type.
    """
    heads = q.shape[2] // k.shape[2]
    k, v, keys, values = (jnp.repeat(x, heads, axis=2) for x in (k, v, keys, values))
    f32 = {"preferred_element_type": jnp.float32}
    history = jnp.einsum("BCHK,BSHK->BHCS", q, keys, **f32)
    own = jnp.einsum("BCHK,BCHK->BHC", q, k, **f32)[..., None]
    scores = jnp.concatenate([history, own], -1) * (q.shape[-1] ** -0.5)
    if bias is not None:
        if bias.key_place is None:
            raise ValueError("the bias of cached attention needs key_place, that of the history")
        apart = bias_scores(bias.table, bias.place, bias.key_place)
        none = jnp.broadcast_to(bias.table[:, :1, None], own.shape)  # a token is 0 from itself
        scores += jnp.concatenate([apart, none], -1)
    seen = jnp.arange(keys.shape[1]) < length[:, None]
    seen = jnp.pad(seen, ((0, 0), (0, 1)), constant_values=True)[:, None, None]
    if activation == "softmax":
        weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), axis=-1)
    else:
        shaped = jax.nn.silu(scores) if activation == "silu" else jax.nn.sigmoid(scores)
        weights = jnp.where(seen, shaped, 0.0) / (length + 1)[:, None, None, None]
    weights = weights.astype(v.dtype)
    out = jnp.einsum("BHCS,BSHK->BCHK", weights[..., :-1], values, **f32)
    out += jnp.moveaxis(weights[..., -1:], 1, 2) * v
    return out.astype(q.dtype)
