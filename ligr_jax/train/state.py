"""What a step reads and writes: parameters, optimizer state, and how many steps went bad."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from ligr_jax.config import OptimConfig
from ligr_jax.data.batch import Batch
from ligr_jax.tables.table import is_table

Params = Any


class TrainState(NamedTuple):
    """step: steps taken, bad ones included; bad_in_row, bad_total: non-finite ones, not applied."""

    step: jax.Array
    params: Params
    opt_state: optax.OptState
    bad_in_row: jax.Array
    bad_total: jax.Array


def schedule(config: OptimConfig, peak: float, steps: int) -> optax.Schedule:
    """Linear warm-up from 0 to `peak`, then cosine to 0, warm-up-stable-decay, or flat."""
    warm = max(1, round(config.warmup * steps))
    rest = max(1, steps - warm)
    tail = max(1, round(0.2 * steps))
    after = {
        "cosine": optax.cosine_decay_schedule(peak, rest),
        "wsd": optax.join_schedules(
            [optax.constant_schedule(peak), optax.linear_schedule(peak, 0.0, tail)],
            [max(0, rest - tail)],
        ),
        "none": optax.constant_schedule(peak),
    }[config.decay]
    return optax.join_schedules([optax.linear_schedule(peak / warm, peak, warm), after], [warm])


def optimizer(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """Global-norm clipping, then Adam at `dense_lr` for dense weights and `table_lr` for tables."""

    def labels(params: Params) -> Params:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "table" if is_table(path) else "dense", params
        )

    def matrices(params: Params) -> Params:
        return jax.tree.map(lambda p: p.ndim > 1, params)

    clip = optax.clip_by_global_norm(config.clip) if config.clip else optax.identity()
    return optax.chain(
        clip,
        optax.multi_transform(
            {
                "table": optax.adamw(
                    schedule(config, config.table_lr, steps), weight_decay=config.table_weight_decay
                ),
                "dense": optax.adamw(
                    schedule(config, config.dense_lr, steps),
                    weight_decay=config.weight_decay,
                    mask=matrices,
                ),
            },
            labels,
        ),
    )


def init_state(
    model: nn.Module, tx: optax.GradientTransformation, batch: Batch, seed: int
) -> TrainState:
    """A fresh state; jit it with output shardings to create it where it will live."""
    params = model.init(jax.random.key(seed), batch)["params"]
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, params, tx.init(params), zero, zero)


def abstract_state(
    model: nn.Module, tx: optax.GradientTransformation, batch: Batch, where: jax.sharding.Sharding
) -> TrainState:
    """Shapes, types and sharding of `init_state`'s result; nothing is computed."""
    shapes = jax.eval_shape(lambda b: init_state(model, tx, b, seed=0), batch)
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where), shapes)
