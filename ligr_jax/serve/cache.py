"""Encoded histories: what a model keeps of B members, in padded arrays that can be extended.

Positions count sessions from the oldest impression of a cache and never change. A cache with too
little room is therefore not shifted: its member is encoded again (`Scorer.restart`).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ligr_jax.data.batch import Batch
from ligr_jax.nn.serving import History
from ligr_jax.ops.masks import MaskKind, past_ends


class Cache(NamedTuple):
    """Encoded histories of B members, one per row, padded to S impressions.

    kept: what the kind of model keeps, arrays [L, B, S, ..]; see the `encode` of the kind.
    session: int32 [B, S], sessions counted from 0 at the oldest impression.
    time: float32 [B, S], hours since the first timed impression.
    length: int32 [B], number of impressions. Above S if more were appended than there was room for;
        then the logits of the row are NaN.
    """

    kept: Any
    session: jax.Array
    time: jax.Array
    length: jax.Array

    @property
    def size(self) -> int:
        """S, the largest number of impressions of a row."""
        result: int = self.session.shape[1]
        return result


def seen_by(cache: Cache, session: jax.Array, kind: MaskKind) -> History:
    """Return the cache as new impressions of sessions [B, N] see it."""
    length = jnp.minimum(cache.length, cache.size)
    end = past_ends(cache.session, length, session, kind)
    return History(
        kept=cache.kept,
        session=cache.session,
        time=cache.time,
        end=end,
        length=length[:, None],
    )


def next_session(cache: Cache) -> jax.Array:
    """Return the number of a new session of each row, int32 [B, 1]."""
    last = jnp.maximum(cache.length - 1, 0)[:, None]
    newest = jnp.take_along_axis(cache.session, last, axis=1)
    return jnp.where(cache.length[:, None] > 0, newest + 1, 0)


def newest_time(cache: Cache) -> jax.Array:
    """Return the time of the newest impression of each row, float32 [B, 1]; 0 without any."""
    last = jnp.maximum(cache.length - 1, 0)[:, None]
    newest = jnp.take_along_axis(cache.time, last, axis=1)
    return jnp.where(cache.length[:, None] > 0, newest, 0.0)


def extended(cache: Cache, kept: Any, batch: Batch) -> Cache:
    """Return the cache with new impressions behind those of each row.

    Args:
        cache: the cache.
        kept: what the model keeps of the new impressions.
        batch: the new impressions, [B, M], padded at the end.
    """
    b, m = batch.member.shape
    count = (batch.member > 0).sum(1, dtype=jnp.int32)
    offset = jnp.arange(m, dtype=jnp.int32)
    # Padding, and impressions without room, get an index that is out of range and are dropped.
    index = jnp.where(offset < count[:, None], cache.length[:, None] + offset, cache.size)

    rows = jnp.arange(b)[:, None]
    by_layer = jax.tree.map(lambda x, y: x.at[:, rows, index].set(y, mode="drop"), cache.kept, kept)
    return Cache(
        kept=by_layer,
        session=cache.session.at[rows, index].set(batch.session, mode="drop"),
        time=cache.time.at[rows, index].set(batch.time, mode="drop"),
        length=cache.length + count,
    )


def grow_cache(cache: Cache, size: int) -> Cache:
    """Return the cache with room for `size` impressions in each row."""
    more = size - cache.size

    def longer(x: jax.Array, axis: int) -> jax.Array:
        return jnp.pad(x, [(0, more if i == axis else 0) for i in range(x.ndim)])

    return Cache(
        kept=jax.tree.map(lambda x: longer(x, 2), cache.kept),
        session=longer(cache.session, 1),
        time=longer(cache.time, 1),
        length=cache.length,
    )


def stack_caches(caches: Sequence[Cache]) -> Cache:
    """Join caches along their rows; all grow to the largest size."""
    size = max(cache.size for cache in caches)
    grown = [grow_cache(cache, size) for cache in caches]

    def join(axis: int, *arrays: jax.Array) -> jax.Array:
        return jnp.concatenate(arrays, axis)

    return Cache(
        kept=jax.tree.map(partial(join, 1), *(cache.kept for cache in grown)),
        session=join(0, *(cache.session for cache in grown)),
        time=join(0, *(cache.time for cache in grown)),
        length=join(0, *(cache.length for cache in grown)),
    )


def cache_rows(cache: Cache, rows: slice | np.ndarray) -> Cache:
    """Return some rows of a cache."""
    return Cache(
        kept=jax.tree.map(lambda x: x[:, rows], cache.kept),
        session=cache.session[rows],
        time=cache.time[rows],
        length=cache.length[rows],
    )
