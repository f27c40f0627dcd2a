"""A member's history as a few pooled tokens, for models that attend to nothing.

Of the impressions that the mask lets an impression see, and again of the newest session among them:

    the mean of their item tokens, of their action tokens,
    and for each action the mean of the item tokens it was taken on

by running sums: linear in N, and the same for all impressions of a session.
"""

import jax
import jax.numpy as jnp

from ligr_jax.data.batch import Batch
from ligr_jax.ops.masks import MaskKind, history_mask, session_mask

SPANS = 2  # all that is seen, its newest session


def pooled_history(
    batch: Batch, items: jax.Array, actions: jax.Array, kind: MaskKind
) -> tuple[jax.Array, jax.Array]:
    """Means over what each impression sees, and how many there were.

    Args:
        items, actions: tokens [B, N, D].

    Returns:
        Means [B, N, 2 (2 + A), D] in the tokens' type, zeros where there is nothing to pool; and
        float32 [B, N, 2 (1 + A)], ln(1 + number) of impressions, and of those with each action.
    """
    b, n, d = items.shape
    taken = (batch.labels > 0).astype(jnp.float32)
    seen = jnp.ones((b, n, 2), jnp.float32)
    weight = jnp.concatenate([seen, taken], axis=-1)[..., None]  # [B, N, 2 + A, 1]
    token = jnp.stack([items, actions] + [items] * taken.shape[-1], axis=2).astype(jnp.float32)
    summed = jnp.concatenate([weight, weight * token], axis=-1).reshape(b, n, -1)

    place = jnp.arange(n)
    mask = history_mask(batch.member, batch.session, kind)
    start, end = mask.lo[:, 0::2] // 2, mask.hi[:, 0::2] // 2
    newest = session_mask(batch.member, batch.session).lo
    last, empty = jnp.maximum(end - 1, 0)[..., None], (start == end)[..., None]

    means, counts = [], []
    for begins in (start == place, newest == place):
        sums = jnp.take_along_axis(running_sums(summed, begins), last, axis=1)
        sums = jnp.where(empty, 0.0, sums).reshape(b, n, -1, 1 + d)
        count = sums[..., :1]
        means.append(sums[..., 1:] / jnp.maximum(count, 1.0))
        counts.append(jnp.log1p(count[:, :, 1:, 0]))
    return jnp.concatenate(means, axis=2).astype(items.dtype), jnp.concatenate(counts, axis=-1)


def running_sums(x: jax.Array, begins: jax.Array) -> jax.Array:
    """Sums from the last beginning up to each place, [B, N, W].

    Sums begin anew, and are not differences of sums over the row: a member's do not feel, not even
    by rounding, who lies before it.

    Args:
        x: [B, N, W].
        begins: bool [B, N].
    """

    def join(
        left: tuple[jax.Array, jax.Array], right: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        return left[0] | right[0], jnp.where(right[0], right[1], left[1] + right[1])

    return jax.lax.associative_scan(join, (begins[..., None], x), axis=1)[1]
