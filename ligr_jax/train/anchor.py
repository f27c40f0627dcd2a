"""A quadratic penalty that holds weights where earlier training left them, as a part of optimizers.

    gradient += strength * importance * (w - center)

which is the gradient of strength / 2 * sum of importance (w - center)^2. Importance and center are
state of the optimizer: they are saved, restored and laid out on a mesh like its moments. Clipping
comes before, so that it never loosens the hold.

Of tables, only rows that a batch looks up are held, and moved: a row that no batch looks up stays
where it is without. No step reads all V rows.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ligr_jax.tables.sparse import Mean, SparseOptimizer, State


class Anchor(NamedTuple):
    """importance, center: pytrees like the weights; of a table [V, E].

    rule: what the optimizer of rows keeps of them; () for dense weights.
    """

    importance: Any
    center: Any
    rule: State = ()


def anchored(strength: float) -> optax.GradientTransformation:
    """Adds the penalty's gradient; holds nothing until its state is given an importance."""

    def init(params: Any) -> Anchor:
        return Anchor(*(jax.tree.map(jnp.zeros_like, params) for _ in range(2)))

    def update(gradients: Any, state: Anchor, params: Any = None) -> tuple[Any, Anchor]:
        pull = jax.tree.map(
            lambda g, h, c, w: g + strength * h * (w - c), gradients, *state[:2], params
        )
        return pull, state

    return optax.GradientTransformation(init, update)


def anchored_rows(rule: SparseOptimizer, strength: float) -> SparseOptimizer:
    """`rule` with the penalty's gradient added to that of the rows of a batch."""

    def init(table: jax.Array) -> Anchor:
        return Anchor(jnp.zeros_like(table), jnp.zeros_like(table), rule.init(table))

    def update(
        rows: jax.Array, g: jax.Array, state: Anchor, rate: jax.Array, step: Any, mean: Mean
    ) -> tuple[jax.Array, Anchor]:
        pull = g + strength * state.importance * (rows - state.center)
        rows, kept = rule.update(rows, pull, state.rule, rate, step, mean)
        return rows, state._replace(rule=kept)

    return SparseOptimizer(init, update)
