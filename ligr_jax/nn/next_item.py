"""Prediction of the next item by a full softmax (SASRec, Kang and McAuley 2018; HSTU 4.1).

    q_i  = W LN(h_i) + b                       h_i: the action token of impression i
    p(v) = softmax_v(q_i . e_v)                e_v: row v of the table of the item
    loss = -log p(item of impression i + 1)    mean over impressions i + 1 that are targets

With `model.mask=causal`, h_i sees the impressions up to i and their actions, as in the papers; with
`model.mask=session` it sees those of earlier sessions and its own. Row 0 (missing) is not a class.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.config import ModelConfig
from ligr_jax.nn.mup import mup_scale
from ligr_jax.nn.towers import logits_layer


class NextItem(nn.Module):
    """Queries whose dot product with the row of an item is the logit of the item."""

    config: ModelConfig

    @nn.compact
    def __call__(self, h_BND: jax.Array) -> jax.Array:
        """Return queries float32 [B, N, E]; E is the width of the item's table."""
        c = self.config
        width = c.tables[c.table_of(c.next_item)].width
        x_BND = nn.LayerNorm(dtype=jnp.float32, name="norm")(h_BND)
        return logits_layer((0.0,) * width, "logits")(x_BND / mup_scale(c).width)


def next_item_loss(
    query_BNE: jax.Array,
    rows_VE: jax.Array,
    item: jax.Array,
    member: jax.Array,
    weight: jax.Array,
) -> jax.Array:
    """Return the mean cross-entropy of the next item, float32 [].

    The logits of one position of all rows are in memory at a time, [B, V]; the backward pass
    computes them again.

    Args:
        query_BNE: result of `NextItem`.
        rows_VE: the table of the item.
        item: int32 [B, N], rows of the table.
        member: int32 [B, N], 0 in padding.
        weight: float [B, N], weight of an impression as the item to predict.
    """
    # The next impression of each position; the last position has none.
    next_item, next_member, next_weight = (
        jnp.pad(x[:, 1:], ((0, 0), (0, 1))) for x in (item, member, weight)
    )
    known = (next_member > 0) & (next_member == member) & (next_item > 0)
    next_weight = jnp.where(known, next_weight, 0.0)

    @jax.checkpoint
    def add(total: jax.Array, position: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        query_BE, target_B, weight_B = position
        logits_BV = (query_BE @ rows_VE.T).at[:, 0].set(-jnp.inf)
        logit = jnp.take_along_axis(logits_BV, target_B[:, None], axis=1)[:, 0]
        loss = jax.nn.logsumexp(logits_BV, axis=1) - logit
        return total + jnp.sum(weight_B * loss), None

    positions = (query_BNE, jnp.where(known, next_item, 1), next_weight)
    by_position = tuple(jnp.moveaxis(x, 1, 0) for x in positions)
    total, _ = jax.lax.scan(add, jnp.zeros((), jnp.float32), by_position)
    return total / jnp.maximum(next_weight.sum(), 1e-9)


def next_item_flops(config: ModelConfig, impressions: float) -> float:
    """Return the forward FLOPs of the head and of its softmax over all items."""
    if not config.next_item:
        return 0.0
    rows, width = config.tables[config.table_of(config.next_item)]
    return impressions * 2 * width * (config.width + rows)
