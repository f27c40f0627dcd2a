"""Training the rows a batch looks up, and no others: a step's cost does not grow with V.

The input pipeline names the distinct rows of a batch. The step gathers them once, differentiates
with respect to the gathered rows, so that what several impressions say about one row is summed, and
writes them and their optimizer state back in place. Tables, gradients and state of V rows are never
read or made.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

State = Any  # a pytree of arrays of V rows, or of the rows of a batch
Mean = Callable[[jax.Array], jax.Array]  # of every row, [U, E] -> [U]


class RowRule(NamedTuple):
    """An optimizer of rows: what it keeps for each of them, and how it moves them.

    init: table [V, E] -> state, arrays of V rows.
    update: (rows [U, E], gradient [U, E], state of the rows, rate, step from 0, mean) -> (rows,
        state). `mean` is over a whole row, of which a device may hold only some columns.
    """

    init: Callable[[jax.Array], State]
    update: Callable[..., tuple[jax.Array, State]]


def rowwise_adagrad(eps: float = 1e-8) -> RowRule:
    """AdaGrad with one accumulator a row, the mean of its squared gradients: 1/E of the memory."""

    def update(
        rows: jax.Array, g: jax.Array, total: State, rate: jax.Array, _: Any, mean: Mean
    ) -> Any:
        total += mean(g * g)
        return rows - rate * g / (jnp.sqrt(total) + eps)[:, None], total

    return RowRule(lambda table: jnp.zeros(table.shape[0]), update)


def adagrad(eps: float = 1e-8) -> RowRule:
    """AdaGrad (Duchi et al. 2011)."""

    def update(
        rows: jax.Array, g: jax.Array, total: State, rate: jax.Array, _: Any, mean: Mean
    ) -> Any:
        total += g * g
        return rows - rate * g / (jnp.sqrt(total) + eps), total

    return RowRule(jnp.zeros_like, update)


def lazy_adam(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> RowRule:
    """Adam whose moments move when their row is looked up; bias corrected by all steps taken."""

    def update(
        rows: jax.Array, g: jax.Array, state: State, rate: jax.Array, step: Any, mean: Mean
    ) -> Any:
        m, v = b1 * state["m"] + (1 - b1) * g, b2 * state["v"] + (1 - b2) * g * g
        taken = step + 1.0
        m_hat, v_hat = m / (1 - b1**taken), v / (1 - b2**taken)
        return rows - rate * m_hat / (jnp.sqrt(v_hat) + eps), {"m": m, "v": v}

    return RowRule(lambda table: {"m": jnp.zeros_like(table), "v": jnp.zeros_like(table)}, update)


def sgd() -> RowRule:
    return RowRule(lambda _: (), lambda rows, g, state, rate, *_: (rows - rate * g, state))


RULES: dict[str, Callable[[], RowRule]] = {
    "rowwise_adagrad": rowwise_adagrad,
    "adagrad": adagrad,
    "lazy_adam": lazy_adam,
    "sgd": sgd,
}


def gather(x: State, ids: jax.Array) -> State:
    """Rows of every array of `x`; zeros where an id is none (V or more)."""
    return jax.tree.map(lambda a: a.at[ids].get(mode="fill", fill_value=0), x)


def update_rows(
    rule: RowRule,
    table: jax.Array,
    state: State,
    ids: jax.Array,
    gradient: jax.Array,
    rate: jax.Array,
    decay: float,
    step: jax.Array,
    mean: Mean | None = None,
    rising: bool = True,
) -> tuple[jax.Array, State]:
    """The table and its optimizer's state after a step, written in place where they are donated.

    Args:
        ids: int32 [U], distinct; V and more are nobody's row.
        gradient: float32 [U, E], summed over all that looked a row up.
        decay: decoupled weight decay of the rows looked up.
        mean: over a whole row; by default `table` has all of it.
        rising: whether the ids are.
    """
    rows, kept = gather((table, state), ids)
    mean = mean or (lambda x: jnp.mean(x, axis=1))
    moved, kept = rule.update(rows, gradient, kept, rate, step, mean)
    return jax.tree.map(
        lambda a, new: a.at[ids].set(
            new, mode="drop", unique_indices=True, indices_are_sorted=rising
        ),
        (table, state),
        (moved - rate * decay * rows, kept),
    )
