"""Representations of several tasks from one input (LiRank, 3.10): MMoE and PLE.

MMoE is Ma et al. 2018 (KDD), PLE Tang et al. 2020 (RecSys). Of the simpler ways, hard sharing is
one representation for all tasks, grouping a tower for each group of them (`ligr_jax.nn.towers`).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.nn.experts import Experts, mix
from ligr_jax.nn.linear import Linear
from ligr_jax.nn.mlp import mlp_flops


class MMoE(nn.Module):
    """For each of `tasks`, a softmax mixture of the same experts: [..., D] -> [..., tasks, F]."""

    tasks: int
    count: int
    widths: Sequence[int]
    gated: bool = False
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        outputs = Experts(self.count, self.widths, self.gated, self.dtype, name="experts")(x)
        scores = Linear(self.tasks * self.count, name="gates")(x.astype(jnp.float32))
        weights = nn.softmax(scores.reshape(*x.shape[:-1], self.tasks, self.count))
        return jnp.einsum("...TE,...EF->...TF", weights.astype(outputs.dtype), outputs)


class PLE(nn.Module):
    """Progressive layered extraction: every task has experts of its own beside the shared ones.

    In each of `levels`, the gate of a task mixes its own `count` experts and the `shared` ones, and
    the gate of the shared part mixes all; each reads the mixture of its own below. The last level
    has no use for a shared part. [..., D] -> [..., tasks, F].
    """

    tasks: int
    count: int
    shared: int
    widths: Sequence[int]
    levels: int = 2
    gated: bool = False
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inputs = [x] * (self.tasks + 1)  # the last is the shared part's
        for level in range(self.levels):
            counts = [self.count] * self.tasks + [self.shared]
            names = [f"level_{level}_task_{t}" for t in range(self.tasks)]
            names += [f"level_{level}_shared"]
            outputs = [
                Experts(count, self.widths, self.gated, self.dtype, name=f"{name}_experts")(h)
                for count, name, h in zip(counts, names, inputs)
            ]
            groups = [[own, outputs[-1]] for own in outputs[:-1]]
            if level < self.levels - 1:
                groups.append(outputs)
            mixed = []
            for name, h, group in zip(names, inputs, groups):
                experts = jnp.concatenate(group, axis=-2)
                gate = Linear(experts.shape[-2], name=f"{name}_gate")
                mixed.append(mix(nn.softmax(gate(h.astype(jnp.float32))), experts))
            inputs = mixed
        return jnp.stack(inputs, axis=-2)


def mmoe_flops(width: int, tasks: int, count: int, widths: Sequence[int], gated: bool) -> int:
    """Of the matrix products of `MMoE` on one example of `width` numbers."""
    mixing = 2 * tasks * count * (width + widths[-1])
    return count * mlp_flops(width, widths, gated) + mixing


def ple_flops(
    width: int, tasks: int, count: int, shared: int, widths: Sequence[int], levels: int, gated: bool
) -> int:
    """Of the matrix products of `PLE` on one example of `width` numbers."""
    total, experts = 0, tasks * count + shared
    for level in range(levels):
        mixed = tasks * (count + shared) + experts * (level < levels - 1)
        # The last level's shared experts read the shared part below, as the others their own.
        total += experts * mlp_flops(width, widths, gated) + 2 * mixed * (width + widths[-1])
        width = widths[-1]
    return total
