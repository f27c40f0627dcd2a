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


def output_logits(
    x: jax.Array, start: Sequence[float], outputs: int, post: jax.Array | None, name: str
) -> jax.Array:
    """Apply the last layer of a head: for each action `outputs` layers, of which one is chosen.

    Must be called inside the `__call__` of a compact module, which then owns the layer.

    Args:
        x: [..., D].
        start: initial logit of each action.
        outputs: P, output layers of each action.
        post: int [...], in 0..P-1, the layer of each impression; None stands for P = 1.
        name: name of the layer.

    Returns:
        float32 [..., A].
    """
    logits: jax.Array = logits_layer(tuple(np.repeat(start, outputs)), name)(x)
    if post is None:
        return logits
    of_layers = logits.reshape(*logits.shape[:-1], len(start), outputs)
    return jnp.take_along_axis(of_layers, post[..., None, None], axis=-1)[..., 0]


class Towers(nn.Module):
    """Logits of A actions from towers, one for each group of actions.

    groups: indices of actions; each of 0..A-1 is in exactly one group.
    start: initial logit of each action.
    widths, gated, dropout: of each tower's MLP.
    outputs: P, output layers of each action; see `output_logits`.
    """

    groups: Sequence[Sequence[int]]
    start: Sequence[float]
    widths: Sequence[int] = ()
    gated: bool = False
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.dtype("float32")
    outputs: int = 1

    @nn.compact
    def __call__(
        self,
        inputs: Sequence[jax.Array],
        deterministic: bool = True,
        post: jax.Array | None = None,
    ) -> jax.Array:
        """Return logits, float32 [..., A], in the order of actions.

        Args:
            inputs: [..., D] for each group.
            deterministic: if False, dropout is applied, which needs a `dropout` key.
            post: as in `output_logits`.

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
            x = tower(x, deterministic)
            logits.append(output_logits(x, start, self.outputs, post, name=f"logits_{i}"))
        return jnp.concatenate(logits, axis=-1)[..., np.argsort(order)]
