"""Elastic weight consolidation (Kirkpatrick et al. 2017) as a part of the optimizers.

    gradient += fisher_weight * fisher * (w - anchor_params)

This is the gradient of fisher_weight / 2 * sum of fisher (w - anchor_params)^2. Both arrays are
optimizer state: they are saved, restored and sharded as Adam's moments are. Gradients are clipped
before the penalty is added, so clipping never weakens the penalty.

Of a table, the penalty acts only on the rows that a batch looks up. Other rows do not move without
it, and no step reads all V rows.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ligr_jax.tables.sparse import Mean, SparseOptimizer, State


class EwcState(NamedTuple):
    """State of the penalty.

    Attributes:
        fisher: diagonal Fisher information, a pytree like the parameters; [V, E] for a table.
        anchor_params: parameters of earlier training, a pytree like the parameters.
        inner: state of the row optimizer that the penalty is added to; () for dense parameters.
    """

    fisher: Any
    anchor_params: Any
    inner: State = ()


def add_fisher_penalty(fisher_weight: float) -> optax.GradientTransformation:
    """Return the transformation that adds the penalty's gradient to that of dense parameters.

    Its initial state has zero Fisher information, which means no penalty.
    """

    def init(params: Any) -> EwcState:
        return EwcState(
            fisher=jax.tree.map(jnp.zeros_like, params),
            anchor_params=jax.tree.map(jnp.zeros_like, params),
        )

    def update(grads: Any, state: EwcState, params: Any = None) -> tuple[Any, EwcState]:
        penalized = jax.tree.map(
            lambda g, h, a, w: g + fisher_weight * h * (w - a),
            grads,
            state.fisher,
            state.anchor_params,
            params,
        )
        return penalized, state

    return optax.GradientTransformation(init, update)


def penalized_rows(optimizer: SparseOptimizer, fisher_weight: float) -> SparseOptimizer:
    """Return the optimizer with the penalty's gradient added to that of the rows of a batch."""

    def init(table: jax.Array) -> EwcState:
        return EwcState(
            fisher=jnp.zeros_like(table),
            anchor_params=jnp.zeros_like(table),
            inner=optimizer.init(table),
        )

    def update(
        rows: jax.Array, g: jax.Array, state: EwcState, rate: jax.Array, step: Any, mean: Mean
    ) -> tuple[jax.Array, EwcState]:
        penalized = g + fisher_weight * state.fisher * (rows - state.anchor_params)
        rows, inner = optimizer.update(rows, penalized, state.inner, rate, step, mean)
        return rows, state._replace(inner=inner)

    return SparseOptimizer(init=init, update=update)
