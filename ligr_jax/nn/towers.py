"""Task towers: an MLP for each group of actions, ending in their logits (LiRank, 3.1, 3.10).

A single group of all actions is hard parameter sharing; one group per action is a tower per task.
LiRank's Feed groups click with long dwell, and the contributions.
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
    """Return log(p / (1 - p)) of base rates in (0, 1), the initial biases of logits."""
    return tuple(math.log(p / (1 - p)) for p in rates)


def logits_layer(start: Sequence[float], name: str) -> Linear:
    """Return a linear map to len(start) logits with zero weights and `start` as its bias."""

    def bias_init(*_: object) -> jax.Array:
        return jnp.asarray(start, jnp.float32)

    return Linear(
        len(start),
        use_bias=True,
        kernel_init=nn.initializers.zeros_init(),
        bias_init=bias_init,
        name=name,
    )


class Towers(nn.Module):
    """Logits of A actions from towers, one for each group of actions.

    groups: indices of actions; each of 0..A-1 is in exactly one group.
    start: initial logit of each action.
    widths, gated, dropout: of each tower's MLP.
    """

    groups: Sequence[Sequence[int]]
    start: Sequence[float]
    widths: Sequence[int] = ()
    gated: bool = False
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, inputs: Sequence[jax.Array], deterministic: bool = True) -> jax.Array:
        """Return logits, float32 [..., A], in the order of actions.

        Args:
            inputs: [..., D] for each group.
            deterministic: if False, dropout is applied, which needs a `dropout` key.

        Raises:
            ValueError: the groups omit or repeat an action.
        """
        order = [action for group in self.groups for action in group]
        if sorted(order) != list(range(len(self.start))):
            raise ValueError(
                f"groups={self.groups} must hold each of {len(self.start)} actions exactly once"
            )
        logits = []
        for i, (group, x) in enumerate(zip(self.groups, inputs, strict=True)):
            tower = MLP(
                self.widths,
                gated=self.gated,
                dropout=self.dropout,
                dtype=self.dtype,
                name=f"tower_{i}",
            )
            start = tuple(self.start[action] for action in group)
            logits.append(logits_layer(start, f"logits_{i}")(tower(x, deterministic)))
        return jnp.concatenate(logits, axis=-1)[..., np.argsort(order)]
