"""The newest steps of a member's history, for every impression: places to gather, no loop."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ligr_jax.ops.masks import MaskKind, history_mask


class Windows(NamedTuple):
    """For each of N impressions, places of up to L earlier ones in its row, newest first.

    place: int32 [B, N, L]; 0 where there is none.
    there: bool [B, N, L]; a window that is not full ends in False.
    """

    place: jax.Array
    there: jax.Array


def history_windows(
    member: jax.Array, session: jax.Array, length: int, kind: MaskKind = "session"
) -> Windows:
    """The last `length` impressions that `history_mask` of the same kind allows.

    `session`: of earlier sessions of the same member, so that no action of a session is in a window
    of the same session. Memory is linear in N x L.

    Args:
        member, session: int32 [B, N]; member 0 is padding.
    """
    mask = history_mask(member, session, kind)
    start, end = (x[:, ::2, None] // 2 for x in (mask.lo, mask.hi))  # item tokens are even
    place = end - 1 - jnp.arange(length, dtype=jnp.int32)
    there = place >= start
    return Windows(jnp.where(there, place, 0), there)


def gather(x: jax.Array, windows: Windows) -> jax.Array:
    """What stands at the places of the windows: [B, N, D] -> [B, N, L, D], zero where none is."""
    b, n, length = windows.place.shape
    rows = jnp.take_along_axis(x, windows.place.reshape(b, n * length, 1), axis=1)
    return jnp.where(windows.there[..., None], rows.reshape(b, n, length, -1), 0)
