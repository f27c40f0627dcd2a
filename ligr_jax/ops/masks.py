"""Who may attend to whom, as data: a range of keys per token, never a matrix.

Sessions and members are contiguous in a row, so every mask of the model is, per query token t,

    allowed(t, j)  <=>  lo[t] <= j < hi[t]  or  j == own[t]  or  j == t

built once per batch and shared by all layers. `own` is the item token of t's own impression, so an
action token always sees the item it answers; the self edge means that no token sees nothing.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

MaskKind = Literal["session", "causal", "session_lag"]


class Mask(NamedTuple):
    """The keys of each of T tokens: a range, and up to two own ones.

    Along the real tokens of a row neither `lo` nor `hi` ever decreases: what a kernel's tiles rely
    on, forward and backward.

    lo, hi: int32 [B, T]; padding (at the end of a row) has the empty range 0, 0.
    valid: bool [B, T], false in padding.
    own: int32 [B, T], t or t - 1, outside [lo, hi) like t itself; or None: the range is all there
        is, and it has t in it.
    """

    lo: jax.Array
    hi: jax.Array
    valid: jax.Array
    own: jax.Array | None = None


def history_mask(member: jax.Array, session: jax.Array, kind: MaskKind = "session") -> Mask:
    """Mask of the historical layers over T = 2N interleaved tokens (item, action, item, ...).

    `session`: impressions of earlier sessions of the same member (LiGR 3.2, 4.0.2): exactly what is
    known when a session is served. `causal`: all earlier impressions of the member, the plain
    decoder mask; it lets an item read actions of its own session, which do not exist at serving
    time. `session_lag`: as `session` without the newest of them: a log that arrives one session
    late.

    Args:
        member, session: int32 [B, N]; member 0 is padding.
    """
    n = member.shape[-1]
    place = jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32), member.shape)
    member_start = _run_start(_changes(member))
    if kind == "causal":
        end = place
    else:
        end = _run_start(_changes(member) | _changes(session))
        if kind == "session_lag":
            previous = jnp.maximum(end - 1, 0)
            end = jnp.maximum(jnp.take_along_axis(end, previous, axis=-1), member_start)
    valid = member > 0
    lo, hi = (jnp.where(valid, 2 * x, 0) for x in (member_start, end))
    return Mask(*(jnp.repeat(x, 2, axis=-1) for x in (lo, hi, valid, 2 * place)))


def session_mask(member: jax.Array, session: jax.Array) -> Mask:
    """Mask of the set-wise layers over N item tokens: all items of the same member and session."""
    n = member.shape[-1]
    starts = _changes(member) | _changes(session)
    # An end is the next start, read from the right.
    ends = n - jnp.flip(_run_start(jnp.flip(_next_changes(starts), -1)), -1)
    valid = member > 0
    lo, hi = (jnp.where(valid, x, 0) for x in (_run_start(starts), ends))
    return Mask(lo, hi, valid)


def dense_mask(mask: Mask) -> jax.Array:
    """bool [B, T, T] (query, key): the reference form, for tests and short rows."""
    key = jnp.arange(mask.lo.shape[-1])
    own = key if mask.own is None else mask.own
    within = (mask.lo[..., None] <= key) & (key < mask.hi[..., None])
    return within | (key == own[..., None]) | (key == key[:, None])


def allowed_keys(mask: Mask) -> jax.Array:
    """int32 [B, T]: how many keys each token sees; 0 in padding."""
    keys = mask.hi - mask.lo
    if mask.own is not None:
        keys += 1 + (mask.own != jnp.arange(mask.lo.shape[-1]))
    return jnp.where(mask.valid, keys, 0)


def allowed_pairs(mask: Mask) -> jax.Array:
    """Number of (query, key) pairs of real tokens, float32 []: what attention must compute."""
    return jnp.sum(allowed_keys(mask), dtype=jnp.float32)


def _changes(x: jax.Array) -> jax.Array:
    """Where a run of equal values starts; the first place always does."""
    first = jnp.ones_like(x[..., :1], dtype=bool)
    return jnp.concatenate([first, x[..., 1:] != x[..., :-1]], axis=-1)


def _next_changes(starts: jax.Array) -> jax.Array:
    """Where a run ends: the place before the next start; the last place always does."""
    last = jnp.ones_like(starts[..., :1])
    return jnp.concatenate([starts[..., 1:], last], axis=-1)


def _run_start(starts: jax.Array) -> jax.Array:
    """Place where the run of each element starts."""
    place = jnp.arange(starts.shape[-1], dtype=jnp.int32)
    return jax.lax.cummax(jnp.where(starts, place, 0), axis=starts.ndim - 1)
