"""Attention for serving: the history is encoded once, and every candidate attends to it."""

import jax
import jax.numpy as jnp

from ligr_jax.ops.attention.scores import Activation, RelativeBias, bias_scores


def attend_cached(
    q_BCHK: jax.Array,
    k_BCGK: jax.Array,
    v_BCGK: jax.Array,
    keys_BSGK: jax.Array,
    values_BSGK: jax.Array,
    length: jax.Array,
    *,
    activation: Activation = "softmax",
    bias: RelativeBias | None = None,
) -> jax.Array:
    """Attend from candidates to a cached history, as `attend` would from a new session.

    A candidate sees the whole history and itself, but no other candidate. This is the historical
    mask, in which all candidates of a session share one range of keys.

    Args:
        q_BCHK: [B, C, H, K], queries of the candidates.
        k_BCGK: [B, C, G, K], keys of the candidates.
        v_BCGK: [B, C, G, K], values of the candidates.
        keys_BSGK: [B, S, G, K], keys of S history tokens, padded at the end.
        values_BSGK: [B, S, G, K], values of the history tokens.
        length: int32 [B], number of history tokens; the rest of S is padding.
        bias: must have `key_position` [B, S], the coordinates of the history.

    Returns:
        [B, C, H, K], in the dtype of the queries.

    Raises:
        ValueError: `bias` has no `key_position`.
    """
    queries_per_key = q_BCHK.shape[2] // k_BCGK.shape[2]
    k_BCHK, v_BCHK, keys_BSHK, values_BSHK = (
        jnp.repeat(x, queries_per_key, axis=2) for x in (k_BCGK, v_BCGK, keys_BSGK, values_BSGK)
    )

    # Scores of the history, followed by one more column: the candidate's score of itself.
    f32 = {"preferred_element_type": jnp.float32}
    history_BHCS = jnp.einsum("BCHK,BSHK->BHCS", q_BCHK, keys_BSHK, **f32)
    own_BHC1 = jnp.einsum("BCHK,BCHK->BHC", q_BCHK, k_BCHK, **f32)[..., None]
    scores = jnp.concatenate([history_BHCS, own_BHC1], -1) * (q_BCHK.shape[-1] ** -0.5)
    if bias is not None:
        if bias.key_position is None:
            raise ValueError(
                "the bias of cached attention has key_position=None; give the history's coordinates"
            )
        history_bias = bias_scores(bias.table, bias.position, bias.key_position)
        # A candidate is at distance 0 from itself, in bucket 0.
        own_bias = jnp.broadcast_to(bias.table[:, :1, None], own_BHC1.shape)
        scores += jnp.concatenate([history_bias, own_bias], -1)

    visible = jnp.arange(keys_BSHK.shape[1]) < length[:, None]
    visible = jnp.pad(visible, ((0, 0), (0, 1)), constant_values=True)[:, None, None]
    if activation == "softmax":
        weights = jax.nn.softmax(jnp.where(visible, scores, -jnp.inf), axis=-1)
    else:
        activated = jax.nn.silu(scores) if activation == "silu" else jax.nn.sigmoid(scores)
        weights = jnp.where(visible, activated, 0.0) / (length + 1)[:, None, None, None]

    weights = weights.astype(v_BCHK.dtype)
    out_BCHK = jnp.einsum("BHCS,BSHK->BCHK", weights[..., :-1], values_BSHK, **f32)
    out_BCHK += jnp.moveaxis(weights[..., -1:], 1, 2) * v_BCHK
    return out_BCHK.astype(q_BCHK.dtype)
