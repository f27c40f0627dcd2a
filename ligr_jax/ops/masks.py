"""Attention masks as data: a range of keys per token, never a T x T matrix.

Sessions and members are contiguous in a row, so every mask of the models has, for query token t,
the form

    allowed(t, j)  <=>  lo[t] <= j < hi[t]  or  j == own[t]  or  j == t

A mask is built once per batch and shared by all layers. `own` is the item token of t's own
impression: an action token always attends to the item it answers. The self edge j == t gives every
token at least one key. A mask without own edges is a range alone, which may be empty.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

MaskKind = Literal["session", "causal", "session_lag"]


class Mask(NamedTuple):
    """The keys of each of T tokens: a range, plus up to two own edges.

    Along the real tokens of a row neither `lo` nor `hi` decreases. The kernels rely on this, in the
    forward and the backward pass.

    lo, hi: int32 [B, T]; padding (at the end of a row) has the empty range 0, 0.
    valid: bool [B, T], False in padding.
    own: int32 [B, T], t or t - 1; neither t nor own[t] lies in [lo, hi). None: there are no own
        edges, and the keys of t are its range.
    """

    lo: jax.Array
    hi: jax.Array
    valid: jax.Array
    own: jax.Array | None = None


def history_mask(member: jax.Array, session: jax.Array, kind: MaskKind = "session") -> Mask:
    """Return the mask of the historical layers over T = 2N interleaved tokens (item, action, ...).

    Args:
        member: int32 [B, N]; 0 in padding.
        session: int32 [B, N], non-decreasing along each member.
        kind: which impressions of the same member are visible.
            `session`: those of earlier sessions (LiGR 3.2, 4.0.2), exactly what is known when a
            session is served.
            `causal`: all earlier ones, the plain decoder mask. It shows an item the actions of its
            own session, which do not exist at serving time.
            `session_lag`: as `session` without the newest earlier session, for a log that arrives
            one session late.

    Returns:
        A mask of 2N tokens, with own edges.
    """
    earlier = earlier_mask(member, session, kind)
    item = 2 * jnp.broadcast_to(jnp.arange(member.shape[-1], dtype=jnp.int32), member.shape)
    # Impressions to tokens: impression i has the tokens 2i (item) and 2i + 1 (action).
    ranges = (2 * earlier.lo, 2 * earlier.hi, earlier.valid, item)
    return Mask(*(jnp.repeat(x, 2, axis=-1) for x in ranges))


def earlier_mask(member: jax.Array, session: jax.Array, kind: MaskKind = "session") -> Mask:
    """Return the earlier impressions that each of N impressions sees.

    Args:
        member: int32 [B, N]; 0 in padding.
        session: int32 [B, N], non-decreasing along each member.
        kind: as in `history_mask`.

    Returns:
        A mask of N tokens, one per impression, without own edges. The range is empty in the first
        session of a member, except for `causal`.
    """
    position = jnp.broadcast_to(jnp.arange(member.shape[-1], dtype=jnp.int32), member.shape)
    member_start = _run_start(_changes(member))
    if kind == "causal":
        end = position
    else:
        end = _run_start(_changes(member) | _changes(session))
        if kind == "session_lag":
            previous = jnp.maximum(end - 1, 0)
            end = jnp.maximum(jnp.take_along_axis(end, previous, axis=-1), member_start)
    valid = member > 0
    lo, hi = (jnp.where(valid, x, 0) for x in (member_start, end))
    return Mask(lo, hi, valid)


def newest_of(mask: Mask, window: int | jax.Array | None) -> Mask:
    """Return a mask whose ranges hold only the newest keys.

    Args:
        mask: a mask.
        window: largest number of keys of a range; None for no limit. Own edges are kept.
    """
    return mask if window is None else mask._replace(lo=jnp.maximum(mask.lo, mask.hi - window))


def past_ends(
    session: jax.Array, length: jax.Array, new_session: jax.Array, kind: MaskKind = "session"
) -> jax.Array:
    """Return how much of a kept history each new impression may see: the first `end` impressions.

    The rule is that of `history_mask`, for a row of the history followed by the new impressions.

    Args:
        session: int32 [B, S], sessions of the kept impressions.
        length: int32 [B], number of kept impressions; the rest of S is padding.
        new_session: int32 [B, N], sessions of the new impressions, not below those of the history.
            Padding, at the end of a row, does not matter.
        kind: as in `history_mask`.

    Returns:
        int32 [B, N].
    """
    b, n = new_session.shape
    index = length[:, None] + jnp.arange(n, dtype=jnp.int32)
    row = jnp.concatenate([session, jnp.zeros_like(new_session)], axis=1)
    row = row.at[jnp.arange(b)[:, None], index].set(new_session)
    member = (jnp.arange(row.shape[1]) < length[:, None] + n).astype(jnp.int32)
    ends = history_mask(member, row, kind).hi[:, 0::2] // 2  # item tokens are even
    return jnp.minimum(jnp.take_along_axis(ends, index, axis=1), length[:, None])


def session_mask(member: jax.Array, session: jax.Array) -> Mask:
    """Return the mask of the set-wise layers over N item tokens: all items of the same session.

    Args:
        member: int32 [B, N]; 0 in padding.
        session: int32 [B, N], non-decreasing along each member.

    Returns:
        A mask of N tokens, without own edges.
    """
    n = member.shape[-1]
    starts = _changes(member) | _changes(session)
    # The end of a session is the start of the next one, found by scanning from the right.
    ends = n - jnp.flip(_run_start(jnp.flip(_run_ends(starts), -1)), -1)
    valid = member > 0
    lo, hi = (jnp.where(valid, x, 0) for x in (_run_start(starts), ends))
    return Mask(lo, hi, valid)


def dense_mask(mask: Mask) -> jax.Array:
    """Return the mask as bool [B, T, T] (query, key): the reference form."""
    key = jnp.arange(mask.lo.shape[-1])
    in_range_BTT = (mask.lo[..., None] <= key) & (key < mask.hi[..., None])
    if mask.own is None:
        return in_range_BTT
    return in_range_BTT | (key == mask.own[..., None]) | (key == key[:, None])


def allowed_keys(mask: Mask) -> jax.Array:
    """Return the number of keys of each token, int32 [B, T]; 0 in padding."""
    keys = mask.hi - mask.lo
    if mask.own is not None:
        keys += 1 + (mask.own != jnp.arange(mask.lo.shape[-1]))
    return jnp.where(mask.valid, keys, 0)


def allowed_pairs(mask: Mask) -> jax.Array:
    """Return the number of (query, key) pairs of real tokens, float32 []: the work of attention."""
    return jnp.sum(allowed_keys(mask), dtype=jnp.float32)


def _changes(x: jax.Array) -> jax.Array:
    """Mark the first element of every run of equal values, along the last axis."""
    first = jnp.ones_like(x[..., :1], dtype=bool)
    return jnp.concatenate([first, x[..., 1:] != x[..., :-1]], axis=-1)


def _run_ends(starts: jax.Array) -> jax.Array:
    """Mark the last element of every run, given the marks of the first elements."""
    last = jnp.ones_like(starts[..., :1])
    return jnp.concatenate([starts[..., 1:], last], axis=-1)


def _run_start(starts: jax.Array) -> jax.Array:
    """Return for each element the position at which its run starts, int32."""
    position = jnp.arange(starts.shape[-1], dtype=jnp.int32)
    return jax.lax.cummax(jnp.where(starts, position, 0), axis=starts.ndim - 1)
