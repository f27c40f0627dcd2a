"""The newest steps of a member's history for every impression, as positions to gather."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ligr_jax.ops.masks import MaskKind, history_mask


class Windows(NamedTuple):
    """For each of N impressions, the positions of up to L earlier ones in its row, newest first.

    position_BNL: int32 [B, N, L]; 0 in empty slots.
    valid_BNL: bool [B, N, L]; empty slots are at the end of a window.
    """

    position_BNL: jax.Array
    valid_BNL: jax.Array


def history_windows(
    member: jax.Array, session: jax.Array, length: int, kind: MaskKind = "session"
) -> Windows:
    """Return the newest `length` impressions that `history_mask` of the same kind allows.

    With `session`, these are impressions of earlier sessions of the same member, so no window
    contains an action of its own session. Memory is linear in N x L.

    Args:
        member: int32 [B, N]; 0 in padding.
        session: int32 [B, N], non-decreasing along each member.
        length: L.
        kind: as in `history_mask`.
    """
    mask = history_mask(member, session, kind)
    start, end = (x[:, ::2, None] // 2 for x in (mask.lo, mask.hi))  # item tokens are even
    position_BNL = end - 1 - jnp.arange(length, dtype=jnp.int32)
    valid_BNL = position_BNL >= start
    return Windows(jnp.where(valid_BNL, position_BNL, 0), valid_BNL)


def newest_windows(end: jax.Array, length: int) -> Windows:
    """Return windows of the newest `length` impressions before `end`, in a row of one member.

    Args:
        end: int32 [B, N], the number of impressions that each window may hold.
        length: L.
    """
    position_BNL = end[..., None] - 1 - jnp.arange(length, dtype=jnp.int32)
    valid_BNL = position_BNL >= 0
    return Windows(jnp.where(valid_BNL, position_BNL, 0), valid_BNL)


def gather_windows(x_BSD: jax.Array, windows: Windows) -> jax.Array:
    """Gather the values of each window.

    Args:
        x_BSD: [B, S, D], one value per impression that the windows refer to.
        windows: windows of L impressions.

    Returns:
        [B, N, L, D], newest first; zero in empty slots.
    """
    b, n, length = windows.position_BNL.shape
    index = windows.position_BNL.reshape(b, n * length, 1)
    rows = jnp.take_along_axis(x_BSD, index, axis=1)
    return jnp.where(windows.valid_BNL[..., None], rows.reshape(b, n, length, -1), 0)
