"""Towers of tasks: an MLP for each group of actions, ending in their logits (LiRank, 3.1, 3.10).

One group of all actions is hard sharing; a group for each action is a tower per task; LiRank's Feed
groups click with long dwell, and the contributions.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ligr_jax.nn.linear import Linear
from ligr_jax.nn.mlp import MLP


def log_odds(rates: Sequence[float]) -> tuple[float, ...]:
    """log(p / (1 - p)) of base rates inside (0, 1): where the biases of logits start."""
    return tuple(math.log(p / (1 - p)) for p in rates)


def logits_layer(start: Sequence[float], name: str) -> Linear:
    """A map to len(start) logits: its weights are zero at first, so it says `start` of all."""
    return Linear(
        len(start),
        use_bias=True,
        kernel_init=nn.initializers.zeros_init(),
        bias_init=lambda *_: jnp.asarray(start, jnp.float32),
        name=name,
    )


class Towers(nn.Module):
    """Logits of A actions from T towers, each for a group of them.

    groups: numbers of actions; each of 0..A-1 is in one group.
    start: log-odds per action before anything is learned.
    """

    groups: Sequence[Sequence[int]]
    start: Sequence[float]
    widths: Sequence[int] = ()
    gated: bool = False
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, inputs: Sequence[jax.Array], deterministic: bool = True) -> jax.Array:
        """inputs: [..., D] for each group; returns float32 [..., A].

        Raises:
            ValueError: the groups leave an action out, or have it twice.
        """
        order = [action for group in self.groups for action in group]
        if sorted(order) != list(range(len(self.start))):
            raise ValueError(f"groups={self.groups} must hold each of {len(self.start)} actions")
        logits = []
        for i, (group, x) in enumerate(zip(self.groups, inputs, strict=True)):
            tower = MLP(self.widths, self.gated, self.dropout, self.dtype, name=f"tower_{i}")
            start = tuple(self.start[action] for action in group)
            logits.append(logits_layer(start, f"logits_{i}")(tower(x, deterministic)))
        return jnp.concatenate(logits, axis=-1)[..., np.argsort(order)]
