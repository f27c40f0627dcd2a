"""Popularity beside the deep model (LiRank, 3.9): a random effect of each item, for each action.

p = sigmoid(logit(global effect) + logit(random effect))
"""

import jax
from flax import linen as nn


class RandomEffect(nn.Module):
    """logits + gain * effect: one gain per action, zero at first, so that fresh rows say nothing.

    `effect` is looked up in a table by the item's id, a number for each action: a wide model, which
    sees nothing else of the item.
    """

    @nn.compact
    def __call__(self, logits: jax.Array, effect: jax.Array) -> jax.Array:
        """logits, effect: [..., A]."""
        init = nn.initializers.zeros_init()
        return logits + self.param("gain", init, logits.shape[-1:]) * effect
