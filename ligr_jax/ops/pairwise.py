"""Pairwise logistic loss within sessions (CADET, arXiv:2602.11410).

    loss of a session = mean over its pairs (i, j) with y_i > y_j of log(1 + exp(s_j - s_i))

Sessions are contiguous, so the two impressions of a pair are 1, 2, ..., S - 1 positions apart, for
a longest session of S impressions. One pass per distance visits every pair once: time B N S A and
memory B N A, without an array over pairs. The gradient is the sum of the same terms, and the passes
accumulate it together with the loss: a loop with a traced number of passes has no reverse mode.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class _Sums(NamedTuple):
    """Carry of the loop over distances: the loss of each action [A], and d loss / d scores."""

    loss_A: jax.Array
    grads_BNA: jax.Array


def pair_loss(
    scores_BNA: jax.Array, labels_BNA: jax.Array, session: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the pairwise loss summed over sessions, per action; reverse-mode differentiable.

    A session without a positive and a negative label has zero loss and zero gradient, and is not
    counted.

    Args:
        scores_BNA: float [B, N, A].
        labels_BNA: int [B, N, A]; 1, 0, or negative for unknown labels, which form no pairs.
        session: int32 [B, N], non-decreasing within a row, in 0..N-1; see `session_numbers`.
        mask: bool [B, N], the impressions that take part.

    Returns:
        The summed loss [A] and the number of counted sessions [A], float32.
    """
    b, n, a = scores_BNA.shape
    known_BNA = mask[..., None] & (labels_BNA >= 0)
    sign_BNA = jnp.where(known_BNA, jnp.where(labels_BNA > 0, 1.0, -1.0), 0.0)

    # Pairs of each session, [B N, A] by segment, and the weight of one of them.
    segment = (session + n * jnp.arange(b, dtype=session.dtype)[:, None]).ravel()

    def count(chosen: jax.Array) -> jax.Array:
        flat = chosen.astype(jnp.float32).reshape(b * n, a)
        return jax.ops.segment_sum(flat, segment, b * n, indices_are_sorted=True)

    pairs = count(sign_BNA > 0) * count(sign_BNA < 0)
    pairs_BNA = pairs[segment].reshape(b, n, a)
    weight_BNA = jnp.where(pairs_BNA > 0, 1 / jnp.maximum(pairs_BNA, 1.0), 0.0)

    # The largest distance within a session that has a pair; padding has none.
    position = jnp.arange(n, dtype=jnp.int32)
    starts = jnp.pad(session[:, 1:] != session[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    rank = position - jax.lax.cummax(jnp.where(starts, position, 0), axis=1)
    farthest = jnp.where(weight_BNA > 0, rank[..., None], 0).max(initial=0)
    loss_A = _summed(scores_BNA.astype(jnp.float32), sign_BNA, weight_BNA, session, farthest)
    return loss_A, (pairs > 0).sum(0).astype(jnp.float32)


@jax.custom_vjp
def _summed(
    scores_BNA: jax.Array,
    sign_BNA: jax.Array,
    weight_BNA: jax.Array,
    session: jax.Array,
    farthest: jax.Array,
) -> jax.Array:
    """Return the weighted sum over all pairs, float32 [A].

    Args:
        scores_BNA: float32 [B, N, A].
        sign_BNA: float32 [B, N, A]; 1 for positives, -1 for negatives, 0 for no part in a pair.
        weight_BNA: float32 [B, N, A], weight of a pair of the impression's session.
        session: int32 [B, N].
        farthest: int32 [], largest distance of a pair.
    """
    return _loss_and_grads(scores_BNA, sign_BNA, weight_BNA, session, farthest).loss_A


def _loss_and_grads(
    scores_BNA: jax.Array,
    sign_BNA: jax.Array,
    weight_BNA: jax.Array,
    session: jax.Array,
    farthest: jax.Array,
) -> _Sums:
    """Return the sum over all pairs, and its gradient; arguments as of `_summed`."""
    n = session.shape[1]
    after_scores, after_sign = (
        jnp.pad(x, ((0, 0), (0, n), (0, 0))) for x in (scores_BNA, sign_BNA)
    )
    after_session = jnp.pad(session, ((0, 0), (0, n)), constant_values=-1)

    def add_distance(distance: jax.Array, sums: _Sums) -> _Sums:
        """Add the pairs (i, i + distance) of all rows."""
        z_BNA, y_BNA, other = (
            jax.lax.dynamic_slice_in_dim(x, distance, n, axis=1)
            for x in (after_scores, after_sign, after_session)
        )
        is_pair = (session == other)[..., None] & (sign_BNA * y_BNA < 0)
        # Score of the negative minus that of the positive.
        excess_BNA = jnp.where(is_pair, (z_BNA - scores_BNA) * sign_BNA, 0.0)
        pair_weight_BNA = jnp.where(is_pair, weight_BNA, 0.0)
        loss_A = (jax.nn.softplus(excess_BNA) * pair_weight_BNA).sum((0, 1))
        pull_BNA = jax.nn.sigmoid(excess_BNA) * pair_weight_BNA * sign_BNA
        before_BNA = jnp.pad(pull_BNA, ((0, 0), (n, 0), (0, 0)))
        pushed_BNA = jax.lax.dynamic_slice_in_dim(before_BNA, n - distance, n, axis=1)
        return _Sums(sums.loss_A + loss_A, sums.grads_BNA + pushed_BNA - pull_BNA)

    zeros = _Sums(jnp.zeros(scores_BNA.shape[-1], jnp.float32), jnp.zeros_like(scores_BNA))
    sums: _Sums = jax.lax.fori_loop(1, farthest + 1, add_distance, zeros)
    return sums


def _summed_forward(*inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
    sums = _loss_and_grads(*inputs)
    return sums.loss_A, sums.grads_BNA


def _summed_backward(grads_BNA: jax.Array, cotangent_A: jax.Array) -> tuple[jax.Array | None, ...]:
    return cotangent_A * grads_BNA, None, None, None, None


_summed.defvjp(_summed_forward, _summed_backward)
