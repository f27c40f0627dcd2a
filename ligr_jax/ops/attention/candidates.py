"""Attention of candidates: M tokens per impression read a range of history, and their own keys.

The candidate stream of the two-stream models (`ligr_jax.nn.streams`) has M tokens for every
impression. All of them see the same range of history tokens, and own keys that no other impression
sees. The two parts have different keys, so they are computed apart and merged exactly:

    softmax        out = (e^r o_r + sum_p e^(s_p) v_p) / (e^r + sum_p e^(s_p))
    silu, sigmoid  out = (n_r o_r + sum_p act(s_p) v_p) / (n_r + n_p)

with r the log of the sum of exponentials over the range, o_r the output over the range alone, n_r
its number of keys, and s_p the scores of the n_p own keys. Without any key the output is 0.

The M queries of an impression share their range, as query heads share a key head. So the range part
is `attend` with H M query heads, by any of its implementations.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ligr_jax.ops.attention.cached import Past, fold_history
from ligr_jax.ops.attention.dispatch import Implementation, attend_with_normalizer
from ligr_jax.ops.attention.scores import LOWEST, Activation, RelativeBias
from ligr_jax.ops.masks import Mask, allowed_keys


class OwnKeys(NamedTuple):
    """P keys of each impression that only its own M queries see.

    keys_BNPGK, values_BNPGK: [B, N, P, G, K].
    allowed_MP: bool [M, P], which keys each query sees.
    """

    keys_BNPGK: jax.Array
    values_BNPGK: jax.Array
    allowed_MP: jax.Array


class _OwnScores(NamedTuple):
    """Scores of own keys, `LOWEST` if masked, and their values, repeated for the query heads.

    scores_BNMHP: float32 [B, N, M, H, P].
    values_BNPHK: [B, N, P, H, K].
    keys_M: float32 [M], the number of allowed keys.
    """

    scores_BNMHP: jax.Array
    values_BNPHK: jax.Array
    keys_M: jax.Array


def attend_candidates(
    q_BNMHK: jax.Array,
    k_BSGK: jax.Array,
    v_BSGK: jax.Array,
    mask: Mask,
    own: OwnKeys | None = None,
    *,
    activation: Activation = "softmax",
    bias: RelativeBias | None = None,
    implementation: Implementation = "auto",
) -> jax.Array:
    """Attend from M tokens of each impression to a range of history, and to own keys.

    Args:
        q_BNMHK: [B, N, M, H, K], queries.
        k_BSGK: [B, S, G, K], keys of the history tokens, with S <= N and H a multiple of G.
        v_BSGK: [B, S, G, K], values of the history tokens.
        mask: [B, N], the range of each impression in 0..S, without own edges.
        own: keys of the impression itself; None without any. Own keys have distance 0.
        activation: how scores become weights.
        bias: a relative bias between impressions, with a table [H, buckets]; needs S = N.
        implementation: as in `attend`.

    Returns:
        [B, N, M, H, K], in the dtype of the queries; 0 in padding.
    """
    b, n, m, h, width = q_BNMHK.shape
    missing = n - k_BSGK.shape[1]
    k_BNGK, v_BNGK = (_padded(x, missing) for x in (k_BSGK, v_BSGK))
    out, lse = attend_with_normalizer(
        jnp.swapaxes(q_BNMHK, 2, 3).reshape(b, n, h * m, width),
        k_BNGK,
        v_BNGK,
        mask,
        activation=activation,
        bias=bias,
        implementation=implementation,
    )
    out_BNMHK = jnp.swapaxes(out.reshape(b, n, h, m, width), 2, 3)
    if own is None:
        return out_BNMHK
    lse_BNMH = jnp.swapaxes(lse.reshape(b, n, h, m), 2, 3)
    scored = _own_scores(q_BNMHK, own, bias)
    if activation == "softmax":
        highest = jnp.maximum(lse_BNMH, scored.scores_BNMHP.max(-1))
        highest = jax.lax.stop_gradient(jnp.where(highest > LOWEST, highest, 0.0))
        range_weight = jnp.exp(lse_BNMH - highest)
        own_weights = jnp.exp(scored.scores_BNMHP - highest[..., None])
        total = range_weight + own_weights.sum(-1)
    else:
        range_weight = allowed_keys(mask).astype(jnp.float32)[:, :, None, None]
        own_weights = _pointwise(activation, scored.scores_BNMHP)
        total = jnp.broadcast_to(range_weight + scored.keys_M[:, None], lse_BNMH.shape)
    mixed = range_weight[..., None] * out_BNMHK + _mix_own(own_weights, scored.values_BNPHK)
    merged = mixed / jnp.where(total > 0, total, 1.0)[..., None]
    merged = jnp.where(mask.valid[:, :, None, None, None], merged, 0.0)
    return merged.astype(q_BNMHK.dtype)


def attend_candidates_cached(
    q_BCMHK: jax.Array,
    past: Past,
    own: OwnKeys | None = None,
    *,
    activation: Activation = "softmax",
    bias: RelativeBias | None = None,
    differentiable: bool = False,
) -> jax.Array:
    """Attend from candidates to a cached history, as `attend_candidates` does within a row.

    Args:
        q_BCMHK: [B, C, M, H, K], queries of the M tokens of each of C candidates.
        past: the history, [B, S, G, K], and the part of it that each candidate sees.
        own: keys of the candidate itself, [B, C, P, G, K]; None without any.
        activation: how scores become weights.
        bias: a relative bias with the coordinates of the candidates; `past.position` has those of
            the history.
        differentiable: as in `fold_history`.

    Returns:
        [B, C, M, H, K], in the dtype of the queries.
    """
    b, c, m, h, width = q_BCMHK.shape
    # Query heads that share a key head must be adjacent: [H, M].
    q_BHTK = jnp.moveaxis(q_BCMHK, 1, 3).reshape(b, m, h, c, width)
    q_BHTK = jnp.swapaxes(q_BHTK, 1, 2).reshape(b, h * m, c, width)
    by_head = None
    if bias is not None:
        by_head = bias._replace(table=jnp.repeat(bias.table, m, axis=0))

    def by_head_and_query(x_BCMHx: jax.Array) -> jax.Array:
        """Reshape [B, C, M, H, x] to [B, H M, C, x]."""
        return jnp.transpose(x_BCMHx, (0, 3, 2, 1, 4)).reshape(b, h * m, c, -1)

    shape = (b, h * m, c, 1)
    highest, total = jnp.full(shape, LOWEST), jnp.zeros(shape)
    mixed_BHTK = jnp.zeros((b, h * m, c, width), jnp.float32)
    own_keys = jnp.zeros(())
    if own is not None:
        scored = _own_scores(q_BCMHK, own, bias)
        if activation == "softmax":
            highest_BCMH = scored.scores_BNMHP.max(-1, keepdims=True)
            weights = jnp.where(
                scored.scores_BNMHP > LOWEST, jnp.exp(scored.scores_BNMHP - highest_BCMH), 0.0
            )
            highest = by_head_and_query(highest_BCMH)
        else:
            weights = _pointwise(activation, scored.scores_BNMHP)
        total = by_head_and_query(weights.sum(-1, keepdims=True))
        mixed_BHTK = by_head_and_query(_mix_own(weights, scored.values_BNPHK))
        own_keys = jnp.tile(scored.keys_M, h)[:, None, None]
    state = (highest, total, mixed_BHTK)
    _, total, mixed_BHTK = fold_history(
        q_BHTK, past, state, activation, by_head, differentiable=differentiable
    )
    if activation != "softmax":
        total = past.keys.astype(jnp.float32)[:, None, :, None] + own_keys
    out = mixed_BHTK / jnp.where(total > 0, total, 1.0)
    out_BCMHK = jnp.transpose(out.reshape(b, h, m, c, width), (0, 3, 2, 1, 4))
    return out_BCMHK.astype(q_BCMHK.dtype)


def _padded(x_BSGK: jax.Array, missing: int) -> jax.Array:
    return jnp.pad(x_BSGK, ((0, 0), (0, missing), (0, 0), (0, 0))) if missing else x_BSGK


def _own_scores(q_BNMHK: jax.Array, own: OwnKeys, bias: RelativeBias | None) -> _OwnScores:
    shared = q_BNMHK.shape[3] // own.keys_BNPGK.shape[3]
    k_BNPHK, v_BNPHK = (
        jnp.repeat(x, shared, axis=3) if shared > 1 else x
        for x in (own.keys_BNPGK, own.values_BNPGK)
    )
    scores = jnp.einsum(
        "BNMHK,BNPHK->BNMHP", q_BNMHK, k_BNPHK, preferred_element_type=jnp.float32
    ) * (q_BNMHK.shape[-1] ** -0.5)
    if bias is not None:
        scores += bias.table[:, :1]  # distance 0 is in bucket 0
    allowed = own.allowed_MP[:, None]
    return _OwnScores(
        scores_BNMHP=jnp.where(allowed, scores, LOWEST),
        values_BNPHK=v_BNPHK,
        keys_M=own.allowed_MP.sum(-1).astype(jnp.float32),
    )


def _pointwise(activation: Activation, scores: jax.Array) -> jax.Array:
    """Return un-normalized weights; 0 for masked scores."""
    function = jax.nn.silu if activation == "silu" else jax.nn.sigmoid
    return jnp.where(scores > LOWEST, function(jnp.where(scores > LOWEST, scores, 0.0)), 0.0)


def _mix_own(weights_BNMHP: jax.Array, v_BNPHK: jax.Array) -> jax.Array:
    return jnp.einsum(
        "BNMHP,BNPHK->BNMHK",
        weights_BNMHP.astype(v_BNPHK.dtype),
        v_BNPHK,
        preferred_element_type=jnp.float32,
    )
