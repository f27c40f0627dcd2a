"""The training state: parameters, optimizer state, and counts of skipped steps."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.data.batch import Batch
from ligr_jax.nn.batch_norm import STATISTICS
from ligr_jax.tables.create import create
from ligr_jax.tables.table import TABLES
from ligr_jax.train.optimizer import Optimizer, OptState, Params, split_tables


class TrainState(NamedTuple):
    """What a step reads and writes.

    Attributes:
        step: int32 []; number of steps, skipped ones included.
        params: parameters, with tables as stored.
        opt_state: state of the optimizer.
        bad_in_row: int32 []; skipped (non-finite) steps since the last applied one.
        bad_total: int32 []; all skipped steps.
        stats: batch statistics (`ligr_jax.nn.batch_norm`); empty for models without any.
    """

    step: jax.Array
    params: Params
    opt_state: OptState
    bad_in_row: jax.Array
    bad_total: jax.Array
    stats: Any


def init_state(model: nn.Module, tx: Optimizer, batch: Batch, key: jax.Array) -> TrainState:
    """Return a new state. Jit it with output shardings to create it on its devices.

    Args:
        model: model to initialize.
        tx: its optimizer.
        batch: a batch of the shapes that the model will see.
        key: random key of the parameters.
    """
    variables = model.init(key, batch)
    params, _ = split_tables(variables["params"])
    if tx.layout.arrays:
        params[TABLES] = create(tx.layout, key, model.config.table_init, model.config.effects)
    zero = jnp.zeros((), jnp.int32)
    return TrainState(
        step=zero,
        params=params,
        opt_state=tx.init(params),
        bad_in_row=zero,
        bad_total=zero,
        stats=variables.get(STATISTICS, {}),
    )


def abstract_state(model: nn.Module, tx: Optimizer, batch: Batch) -> TrainState:
    """Return the shapes and types of the result of `init_state`, computing nothing."""
    result: TrainState = jax.eval_shape(
        lambda b: init_state(model, tx, b, jax.random.key(0)), batch
    )
    return result
