"""A member's history as a few pooled tokens, for models without attention.

Two sets of impressions are pooled: all that the mask allows, and those of the newest session among
them. The pooled tokens of a set are

    the mean of its item tokens, and the mean of its action tokens;
    for each action, the mean of the item tokens on which it was taken.

Running sums make this linear in N. With a session mask, all impressions of a session share them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ligr_jax.data.batch import Batch
from ligr_jax.ops.masks import MaskKind, history_mask, session_mask

SPANS = 2  # all visible impressions, and their newest session


class PooledInput(NamedTuple):
    """What is pooled of every impression.

    items_BND: item tokens [B, N, D].
    actions_BND: action tokens [B, N, D].
    labels_BNA: int8 [B, N, A], the labels that a history shows.
    """

    items_BND: jax.Array
    actions_BND: jax.Array
    labels_BNA: jax.Array


def pooled_history(
    batch: Batch, inputs: PooledInput, kind: MaskKind
) -> tuple[jax.Array, jax.Array]:
    """Pool the tokens that each impression may see.

    Args:
        batch: the impressions.
        inputs: their tokens.
        kind: the mask; see `ligr_jax.ops.masks.history_mask`.

    Returns:
        Means [B, N, 2 (2 + A), D] in the dtype of the tokens, zero for an empty set; and float32
        [B, N, 2 (1 + A)], ln(1 + count) of the impressions and of those with each action.
    """
    b, n, d = inputs.items_BND.shape
    summand_BNW = _summands(inputs)

    # Impression i sees the impressions start[i] .. end[i] - 1.
    position = jnp.arange(n)
    mask = history_mask(batch.member, batch.session, kind)
    start, end = mask.lo[:, 0::2] // 2, mask.hi[:, 0::2] // 2
    session_start = session_mask(batch.member, batch.session).lo
    last = jnp.maximum(end - 1, 0)[..., None]
    empty = (start == end)[..., None]

    # The sum over a set is the running sum at its last impression, since running sums restart at
    # the member's first impression, or at each session.
    means, counts = [], []
    for restarts in (start == position, session_start == position):
        sums = jnp.take_along_axis(running_sums(summand_BNW, restarts), last, axis=1)
        mean, count = _mean(jnp.where(empty, 0.0, sums).reshape(b, n, -1, 1 + d))
        means.append(mean)
        counts.append(count)
    dtype = inputs.items_BND.dtype
    return jnp.concatenate(means, axis=2).astype(dtype), jnp.concatenate(counts, axis=-1)


def pooled_past(
    kept: PooledInput, session: jax.Array, end: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Pool the first `end` of S kept impressions of one member per row.

    Args:
        kept: the tokens of the kept impressions.
        session: int32 [B, S], their sessions.
        end: int32 [B, 1], the number of impressions that are pooled.

    Returns:
        As `pooled_history`, with one impression in the place of N.
    """
    b, s, d = kept.items_BND.shape
    summand_BSW = _summands(kept)
    seen_BS = jnp.arange(s) < end
    newest = jnp.take_along_axis(session, jnp.maximum(end - 1, 0), axis=1)
    means, counts = [], []
    for span_BS in (seen_BS, seen_BS & (session == newest)):
        sums = jnp.where(span_BS[..., None], summand_BSW, 0.0).sum(1)
        mean, count = _mean(sums.reshape(b, 1, -1, 1 + d))
        means.append(mean)
        counts.append(count)
    dtype = kept.items_BND.dtype
    return jnp.concatenate(means, axis=2).astype(dtype), jnp.concatenate(counts, axis=-1)


def _summands(inputs: PooledInput) -> jax.Array:
    """Return what is summed, float32 [B, N, W].

    Each of the 2 + A means is a weighted sum of tokens over a sum of weights. Both are summed
    together, as one array of W = (2 + A) (1 + D) columns.
    """
    items_BND = inputs.items_BND
    b, n, _ = items_BND.shape
    taken_BNA = (inputs.labels_BNA > 0).astype(jnp.float32)
    ones_BN2 = jnp.ones((b, n, 2), jnp.float32)
    weight = jnp.concatenate([ones_BN2, taken_BNA], axis=-1)[..., None]  # [B, N, 2 + A, 1]
    tokens = [items_BND, inputs.actions_BND] + [items_BND] * taken_BNA.shape[-1]
    token = jnp.stack(tokens, axis=2).astype(jnp.float32)  # [B, N, 2 + A, D]
    return jnp.concatenate([weight, weight * token], axis=-1).reshape(b, n, -1)


def _mean(sums: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return means [B, N, 2 + A, D] and ln(1 + count) [B, N, 1 + A] of sums [.., 1 + D]."""
    count = sums[..., :1]
    return sums[..., 1:] / jnp.maximum(count, 1.0), jnp.log1p(count[:, :, 1:, 0])


def running_sums(x_BNW: jax.Array, restarts: jax.Array) -> jax.Array:
    """Return the sum from the last restart up to each position, [B, N, W].

    Sums restart instead of being differences of sums over the whole row. So a member's sums do not
    depend, not even by rounding, on the members before it.

    Args:
        x_BNW: [B, N, W].
        restarts: bool [B, N], the positions at which sums restart.
    """

    def join(
        left: tuple[jax.Array, jax.Array], right: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        return left[0] | right[0], jnp.where(right[0], right[1], left[1] + right[1])

    result: jax.Array = jax.lax.associative_scan(join, (restarts[..., None], x_BNW), axis=1)[1]
    return result
