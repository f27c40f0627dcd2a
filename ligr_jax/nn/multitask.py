"""Task-specific representations of one input (LiRank, 3.10): MMoE and PLE.

MMoE is Ma et al. 2018 (KDD), PLE Tang et al. 2020 (RecSys). The simpler alternatives are hard
sharing, one representation for all tasks, and grouping, a tower per group of tasks
(`ligr_jax.nn.towers`).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.nn.experts import Experts, mix
from ligr_jax.nn.linear import Linear
from ligr_jax.nn.mlp import mlp_flops


class MMoE(nn.Module):
    """A softmax mixture of shared experts for each of `tasks`: [..., D] -> [..., tasks, F]."""

    tasks: int
    count: int
    widths: Sequence[int]
    gated: bool = False
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        experts = Experts(
            count=self.count,
            widths=self.widths,
            gated=self.gated,
            dtype=self.dtype,
            name="experts",
        )
        outputs = experts(x)
        scores = Linear(self.tasks * self.count, name="gates")(x.astype(jnp.float32))
        weights = nn.softmax(scores.reshape(*x.shape[:-1], self.tasks, self.count))
        return jnp.einsum("...TE,...EF->...TF", weights.astype(outputs.dtype), outputs)


class PLE(nn.Module):
    """Progressive layered extraction: experts per task and shared, [..., D] -> [..., tasks, F].

    In each of `levels`, the gate of a task mixes the task's `count` experts and the `shared`
    experts, and the gate of the shared part mixes all experts. The input of each part is its own
    mixture of the level below. The last level has no shared part.
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
        inputs = [x] * (self.tasks + 1)  # one per task, then the input of the shared part
        for level in range(self.levels):
            counts = [self.count] * self.tasks + [self.shared]
            names = [f"level_{level}_task_{t}" for t in range(self.tasks)]
            names += [f"level_{level}_shared"]
            outputs = [
                Experts(
                    count=count,
                    widths=self.widths,
                    gated=self.gated,
                    dtype=self.dtype,
                    name=f"{name}_experts",
                )(h)
                for count, name, h in zip(counts, names, inputs)
            ]

            # The experts that each gate mixes.
            groups = [[task_outputs, outputs[-1]] for task_outputs in outputs[:-1]]
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
    """Return the FLOPs of the matrix products of `MMoE` on one example.

    Args:
        width: D, of the input.
        tasks, count, widths, gated: as in `MMoE`.
    """
    mixing = 2 * tasks * count * (width + widths[-1])
    return count * mlp_flops(width, widths, gated) + mixing


def ple_flops(
    width: int, tasks: int, count: int, shared: int, widths: Sequence[int], levels: int, gated: bool
) -> int:
    """Return the FLOPs of the matrix products of `PLE` on one example.

    Args:
        width: D, of the input.
        tasks, count, shared, widths, levels, gated: as in `PLE`.
    """
    total = 0
    experts = tasks * count + shared
    for level in range(levels):
        mixed = tasks * (count + shared) + experts * (level < levels - 1)
        # All experts are computed in every level, the shared ones from the shared part below.
        total += experts * mlp_flops(width, widths, gated) + 2 * mixed * (width + widths[-1])
        width = widths[-1]
    return total
