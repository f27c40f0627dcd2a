"""Sparse optimizers: update only the table rows that a batch looks up, at a cost independent of V.

The input pipeline finds the unique ids of a batch. The step gathers their rows once, differentiates
with respect to the gathered rows, so that the gradients of all impressions that look up a row are
summed, and scatters the rows and their optimizer state back in place. No array of V rows is read or
created.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

State = Any  # a pytree of arrays with V rows, or with the rows of a batch
Mean = Callable[[jax.Array], jax.Array]  # mean over each full row, [U, E] -> [U]


class SparseOptimizer(NamedTuple):
    """An optimizer of table rows.

    Attributes:
        init: table [V, E] -> state, arrays with V rows.
        update: (rows [U, E], gradient [U, E], state of the rows, rate, step from 0, mean) -> (rows,
            state). `mean` is over full rows, of which a device may have only some columns.
    """

    init: Callable[[jax.Array], State]
    update: Callable[..., tuple[jax.Array, State]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RowGrads:
    """Gradients of the rows of one table that a batch looks up.

    Attributes:
        ids: int32 [U], distinct; ids out of range (V or more) are dropped.
        grad_UE: float32 [U, E], summed over all impressions that look up a row.
        ids_are_sorted: whether the ids are increasing.
    """

    ids: jax.Array
    grad_UE: jax.Array
    ids_are_sorted: bool = dataclasses.field(default=True, metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class UpdateScalars:
    """Numbers of one step that all rows share.

    Attributes:
        rate: learning rate.
        step: number of steps before this one.
        decay: decoupled weight decay of the rows looked up.
    """

    rate: jax.Array | float
    step: jax.Array
    decay: float = dataclasses.field(default=0.0, metadata={"static": True})


def rowwise_adagrad(eps: float = 1e-8) -> SparseOptimizer:
    """Return AdaGrad with one accumulator per row, the mean of its squared gradients.

    It needs 1/E of AdaGrad's memory.
    """

    def init(table: jax.Array) -> State:
        return jnp.zeros(table.shape[0])

    def update(
        rows: jax.Array, g: jax.Array, total: State, rate: jax.Array, _: Any, mean: Mean
    ) -> Any:
        total += mean(g * g)
        return rows - rate * g / (jnp.sqrt(total) + eps)[:, None], total

    return SparseOptimizer(init=init, update=update)


def adagrad(eps: float = 1e-8) -> SparseOptimizer:
    """Return AdaGrad (Duchi et al. 2011)."""

    def update(
        rows: jax.Array, g: jax.Array, total: State, rate: jax.Array, _: Any, mean: Mean
    ) -> Any:
        total += g * g
        return rows - rate * g / (jnp.sqrt(total) + eps), total

    return SparseOptimizer(init=jnp.zeros_like, update=update)


def lazy_adam(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> SparseOptimizer:
    """Return Adam that updates the moments of a row only when the row is looked up.

    The bias correction uses the number of all steps, not of the row's updates.
    """

    def init(table: jax.Array) -> State:
        return {"m": jnp.zeros_like(table), "v": jnp.zeros_like(table)}

    def update(
        rows: jax.Array, g: jax.Array, state: State, rate: jax.Array, step: Any, mean: Mean
    ) -> Any:
        m = b1 * state["m"] + (1 - b1) * g
        v = b2 * state["v"] + (1 - b2) * g * g
        steps = step + 1.0
        m_hat = m / (1 - b1**steps)
        v_hat = v / (1 - b2**steps)
        return rows - rate * m_hat / (jnp.sqrt(v_hat) + eps), {"m": m, "v": v}

    return SparseOptimizer(init=init, update=update)


def sgd() -> SparseOptimizer:
    """Return plain gradient descent."""

    def init(_: jax.Array) -> State:
        return ()

    def update(rows: jax.Array, g: jax.Array, state: State, rate: jax.Array, *_: Any) -> Any:
        return rows - rate * g, state

    return SparseOptimizer(init=init, update=update)


SPARSE_OPTIMIZERS: dict[str, Callable[[], SparseOptimizer]] = {
    "rowwise_adagrad": rowwise_adagrad,
    "adagrad": adagrad,
    "lazy_adam": lazy_adam,
    "sgd": sgd,
}


def take_rows(x: State, ids: jax.Array) -> State:
    """Return the rows `ids` of every array of `x`; zeros for ids out of range (V or more)."""
    return jax.tree.map(lambda a: a.at[ids].get(mode="fill", fill_value=0), x)


def update_rows(
    optimizer: SparseOptimizer,
    table: jax.Array,
    state: State,
    grads: RowGrads,
    scalars: UpdateScalars,
    mean: Mean | None = None,
) -> tuple[jax.Array, State]:
    """Update rows of a table and their optimizer state, in place if both are donated.

    Args:
        optimizer: optimizer of the rows.
        table: [V, E].
        state: optimizer state, arrays with V rows.
        grads: gradients of the rows to update.
        scalars: learning rate, step and weight decay.
        mean: mean over full rows; default: the mean over the columns of `table`.

    Returns:
        The table and the state after the step.
    """
    rows, row_state = take_rows((table, state), grads.ids)
    new_rows, new_state = optimizer.update(
        rows, grads.grad_UE, row_state, scalars.rate, scalars.step, mean or _mean_of_columns
    )
    new_rows -= scalars.rate * scalars.decay * rows

    def scatter(array: jax.Array, new: jax.Array) -> jax.Array:
        return array.at[grads.ids].set(
            new, mode="drop", unique_indices=True, indices_are_sorted=grads.ids_are_sorted
        )

    result: tuple[jax.Array, State] = jax.tree.map(scatter, (table, state), (new_rows, new_state))
    return result


def _mean_of_columns(x: jax.Array) -> jax.Array:
    return jnp.mean(x, axis=1)
