"""Semi-local attention of history tokens: the newest K1 keys, and the K2 oldest of the member.

    j is a key of i  <=>  j <= i  and  (i - j < K1  or  rank(j) < K2)

with ranks within the member. These are two ranges and the token itself. The ranges do not overlap,
so their SiLU attentions add exactly:

    out = (n_1 out_1 + n_2 out_2) / (n_1 + n_2),  with n the number of keys of each
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ligr_jax.config import ModelConfig
from ligr_jax.nn.streams import View
from ligr_jax.ops.attention import (
    KeyValues,
    OwnKeys,
    Past,
    RelativeBias,
    append_to_past,
    attend,
    attend_candidates_cached,
)
from ligr_jax.ops.masks import Mask, allowed_keys, newest_of


class SemiLocal(NamedTuple):
    """The keys of a history token.

    local: its newest keys, itself included; 0 for all.
    oldest: and the oldest keys of its member; 0 without `local`.
    """

    local: int
    oldest: int = 0


def semi_local_masks(mask: Mask, keys: SemiLocal) -> tuple[Mask, Mask]:
    """Return the masks of the newest keys, with the own edges of `mask`, and of the oldest keys.

    Args:
        mask: the earlier impressions of each token.
        keys: which of them are keys.
    """
    newest = newest_of(mask, keys.local - 1 if keys.local else None)
    oldest = mask._replace(hi=jnp.minimum(mask.lo + keys.oldest, newest.lo), own=None)
    return newest, oldest


def attend_semi_local(
    config: ModelConfig,
    q_BNHK: jax.Array,
    new: KeyValues,
    view: View,
    kept: KeyValues | None,
    keys: SemiLocal,
    bias: RelativeBias | None = None,
) -> jax.Array:
    """Attend with SiLU from history tokens to some earlier ones and to themselves, [B, N, H, K].

    Args:
        config: gives the implementation of attention.
        q_BNHK: [B, N, H, K], queries.
        new: keys and values of the same tokens.
        view: what the tokens see.
        kept: keys and values of the kept history in this layer, [B, S, H, K]; None without a past.
        keys: which of the visible impressions are keys.
        bias: as in `attend`.
    """
    assert view.history is not None
    if view.past is not None and kept is not None:
        past = Past(kept=kept, length=view.past.length, position=view.past.position)
        past = append_to_past(past, new, view.history.hi, view.position)
        if keys.local:
            start = jnp.maximum(past.length - (keys.local - 1), 0)
            past = past._replace(start=start, oldest=jnp.minimum(start, keys.oldest))
        own = OwnKeys(
            keys_BNPGK=new.keys_BSGK[:, :, None],
            values_BNPGK=new.values_BSGK[:, :, None],
            allowed_MP=jnp.ones((1, 1), bool),
        )
        out_BNMHK = attend_candidates_cached(
            q_BNHK[:, :, None], past, own, activation="silu", bias=bias
        )
        return out_BNMHK[:, :, 0]

    def attended(mask: Mask) -> jax.Array:
        return attend(
            q_BNHK,
            *new,
            mask,
            activation="silu",
            bias=bias,
            implementation=config.implementation,
        )

    newest, oldest = semi_local_masks(view.history, keys)
    if not keys.oldest:
        return attended(newest)
    counts = [allowed_keys(mask).astype(jnp.float32)[..., None, None] for mask in (newest, oldest)]
    total = jnp.maximum(counts[0] + counts[1], 1.0)  # 0 in padding
    out_BNHK = (counts[0] * attended(newest) + counts[1] * attended(oldest)) / total
    return out_BNHK.astype(q_BNHK.dtype)
