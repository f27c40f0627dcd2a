"""Attention for serving: the history is encoded once, and new tokens attend to it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ligr_jax.ops.attention.scores import Activation, RelativeBias, bias_scores
from ligr_jax.ops.masks import Mask, allowed_keys, dense_mask


class KeyValues(NamedTuple):
    """What a layer keeps of S tokens for those that attend to them later.

    keys_BSGK: [B, S, G, K].
    values_BSGK: [B, S, G, K].
    """

    keys_BSGK: jax.Array
    values_BSGK: jax.Array


class Past(NamedTuple):
    """The history that T new tokens attend to, in one layer.

    kept: keys and values of S history tokens, padded at the end; finite in padding.
    length: int32 [B, T], or [B, 1] if equal for all new tokens: each sees the first `length`
        history tokens.
    position: [B, S], coordinates of the history for a relative bias; None without one.
    """

    kept: KeyValues
    length: jax.Array
    position: jax.Array | None = None


def attend_cached(
    q_BTHK: jax.Array,
    k_BTGK: jax.Array,
    v_BTGK: jax.Array,
    past: Past,
    mask: Mask | None = None,
    *,
    activation: Activation = "softmax",
    bias: RelativeBias | None = None,
) -> jax.Array:
    """Attend from new tokens to a cached history, as `attend` would in one row of both.

    Without a mask, the new tokens are the candidates of a request: each sees its part of the
    history and itself, but no other candidate. Then nothing of size T x T is computed.

    Args:
        q_BTHK: [B, T, H, K], queries of the new tokens.
        k_BTGK: [B, T, G, K], keys of the new tokens.
        v_BTGK: [B, T, G, K], values of the new tokens.
        past: the history.
        mask: the allowed pairs among new tokens; None if each sees only itself.
        activation: how scores become weights; see `attend`.
        bias: a relative bias with the coordinates of the new tokens; `past.position` has those of
            the history.

    Returns:
        [B, T, H, K], in the dtype of the queries.

    Raises:
        ValueError: there is a bias but no `past.position`.
    """
    shared = q_BTHK.shape[2] // k_BTGK.shape[2]
    k_BTHK, v_BTHK, keys_BSHK, values_BSHK = (
        jnp.repeat(x, shared, axis=2) if shared > 1 else x for x in (k_BTGK, v_BTGK, *past.kept)
    )

    # Scores of the history, followed by those of the new tokens: T columns, or the own column.
    f32 = {"preferred_element_type": jnp.float32}
    history_BHTS = jnp.einsum("BTHK,BSHK->BHTS", q_BTHK, keys_BSHK, **f32)
    if mask is None:
        own_BHT1 = jnp.einsum("BTHK,BTHK->BHT", q_BTHK, k_BTHK, **f32)[..., None]
        scores = jnp.concatenate([history_BHTS, own_BHT1], -1)
    else:
        new_BHTT = jnp.einsum("BTHK,BUHK->BHTU", q_BTHK, k_BTHK, **f32)
        scores = jnp.concatenate([history_BHTS, new_BHTT], -1)
    scores *= q_BTHK.shape[-1] ** -0.5
    if bias is not None:
        scores += _bias(bias, past.position, mask)

    # Which of these columns each token sees.
    s = keys_BSHK.shape[1]
    seen_BTS = jnp.arange(s) < past.length[..., None]
    if mask is None:
        allowed = jnp.pad(seen_BTS, ((0, 0), (0, 0), (0, 1)), constant_values=True)
        keys = past.length + 1
    else:
        allowed = jnp.concatenate([seen_BTS, dense_mask(mask)], -1)
        keys = past.length + jnp.maximum(allowed_keys(mask), 1)
    allowed = allowed[:, None]
    if activation == "softmax":
        weights = jax.nn.softmax(jnp.where(allowed, scores, -jnp.inf), axis=-1)
    else:
        activated = jax.nn.silu(scores) if activation == "silu" else jax.nn.sigmoid(scores)
        weights = jnp.where(allowed, activated, 0.0) / keys[:, None, :, None]

    weights = weights.astype(v_BTHK.dtype)
    out_BTHK = jnp.einsum("BHTS,BSHK->BTHK", weights[..., :s], values_BSHK, **f32)
    if mask is None:
        out_BTHK += jnp.moveaxis(weights[..., s:], 1, 2) * v_BTHK
    else:
        out_BTHK += jnp.einsum("BHTU,BUHK->BTHK", weights[..., s:], v_BTHK, **f32)
    return out_BTHK.astype(q_BTHK.dtype)


def _bias(bias: RelativeBias, position: jax.Array | None, mask: Mask | None) -> jax.Array:
    """Return the bias of every score of `attend_cached`."""
    if position is None:
        raise ValueError(
            "the bias of cached attention has no past.position; give the history's coordinates"
        )
    history = bias_scores(bias.table, bias.position, position)
    if mask is not None:
        new = bias_scores(bias.table, bias.position, bias.position)
        return jnp.concatenate([history, new], -1)
    # A candidate is at distance 0 from itself, in bucket 0.
    own = jnp.broadcast_to(bias.table[:, :1, None], (*history.shape[:-1], 1))
    return jnp.concatenate([history, own], -1)
