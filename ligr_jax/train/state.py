"""What a step reads and writes: parameters, optimizer state, and how many steps went bad."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from ligr_jax.config import Config, ModelConfig, OptimConfig
from ligr_jax.data.batch import Batch
from ligr_jax.nn.batch_norm import STATISTICS
from ligr_jax.nn.mup import multipliers
from ligr_jax.tables.create import create
from ligr_jax.tables.exchange import update
from ligr_jax.tables.layout import Layout
from ligr_jax.tables.placements import Lists
from ligr_jax.tables.sparse import SPARSE_OPTIMIZERS, SparseOptimizer
from ligr_jax.tables.table import TABLES, is_table
from ligr_jax.train.anchor import anchored, anchored_rows

Params = Any
OptState = Any


class TrainState(NamedTuple):
    """step: steps taken, bad ones included; bad_in_row, bad_total: non-finite ones, not applied.

    stats: statistics of batches (`ligr_jax.nn.batch_norm`), as a step left them; empty for models
        that have none.
    """

    step: jax.Array
    params: Params
    opt_state: OptState
    bad_in_row: jax.Array
    bad_total: jax.Array
    stats: Any


def schedule(config: OptimConfig, peak: float | jax.Array, steps: int) -> optax.Schedule:
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


class Hyper(NamedTuple):
    """Numbers of `OptimConfig` that only scale updates: traced, they serve many runs' program."""

    dense_lr: float | jax.Array
    table_lr: float | jax.Array
    weight_decay: float | jax.Array

    @classmethod
    def of(cls, config: OptimConfig) -> "Hyper":
        return cls(*(getattr(config, name) for name in cls._fields))


@dataclass(frozen=True)
class Optimizer:
    """Adam for dense weights, a row rule for the tables; clipping by the norm of both together.

    rule: None where tables train densely, as weights like others with a rate of their own.
    layout: of the stored tables.
    """

    dense: optax.GradientTransformation
    rule: SparseOptimizer | None
    rate: optax.Schedule
    clip: optax.GradientTransformation
    decay: float
    layout: Layout

    def init(self, params: Params) -> OptState:
        """params: with tables as stored."""
        if self.rule is None:
            return {"dense": self.dense.init(params)}
        dense, tables = split(params)
        rows = {name: self.rule.init(array) for name, array in tables.items()}
        return {"dense": self.dense.init(dense), "rows": rows}

    def update(
        self, state: "TrainState", gradients: Any, lists: Lists, good: jax.Array
    ) -> tuple[Params, OptState]:
        """Parameters and state after a step; unchanged where it was not `good`.

        gradients: of the dense weights, and of the rows of each stored array.
        """
        (of_dense, of_rows), _ = self.clip.update(gradients, optax.EmptyState())
        dense, tables = split(state.params) if self.rule else (state.params, {})

        def move() -> tuple[Any, Any]:
            updates, kept = self.dense.update(of_dense, state.opt_state["dense"], dense)
            return optax.apply_updates(dense, updates), kept

        new_dense, kept = jax.lax.cond(good, move, lambda: (dense, state.opt_state["dense"]))
        if self.rule is None:
            return new_dense, {"dense": kept}
        new_tables, rows = update(
            self.layout,
            self.rule,
            tables,
            state.opt_state["rows"],
            lists,
            of_rows,
            self.rate(state.step),
            self.decay,
            state.step,
            good,
        )
        return {**new_dense, TABLES: new_tables}, {"dense": kept, "rows": rows}


def split(params: Params) -> tuple[Params, dict[str, jax.Array]]:
    """Parameters without their tables, and the tables."""
    dense = {name: x for name, x in params.items() if name != TABLES}
    return dense, dict(params.get(TABLES, {}))


def optimizer(run: Config, steps: int, layout: Layout, hyper: Hyper | None = None) -> Optimizer:
    """The optimizer of a run: `dense_lr` for dense weights, times the multipliers of
    `ligr_jax.nn.mup`, and `table_lr` for tables.

    layout: of the tables of the model it trains.
    hyper: stands in for the configuration's own numbers.
    """
    config = run.optim
    hyper = hyper or Hyper.of(config)

    def matrices(params: Params) -> Params:
        # By name: layers of a stack, experts and curves of calibration stack vectors in 2-D arrays.
        return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)

    def labels(params: Params) -> Params:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "table" if is_table(path) else "dense", params
        )

    table_rate, rule = schedule(config, hyper.table_lr, steps), row_rule(run)
    dense = optax.chain(
        *([anchored(run.train.warm.fisher_weight)] if run.train.warm.fisher_weight else []),
        _scale_by_adam(run.model),
        optax.add_decayed_weights(hyper.weight_decay, matrices),
        optax.scale_by_learning_rate(schedule(config, hyper.dense_lr, steps)),
    )
    if rule is None:
        tables = optax.adamw(table_rate, weight_decay=config.table_weight_decay)
        dense = optax.multi_transform({"table": tables, "dense": dense}, labels)
    clip = optax.clip_by_global_norm(config.clip) if config.clip else optax.identity()
    return Optimizer(dense, rule, table_rate, clip, config.table_weight_decay, layout)


def _scale_by_adam(config: ModelConfig) -> optax.GradientTransformation:
    """Adam with a rate and an epsilon of each parameter's own; its state is Adam's.

    A gradient multiplied by 1 / c beside epsilon is the gradient beside c epsilon.
    """
    adam = optax.scale_by_adam()

    def update(gradients: Any, state: Any, params: Params | None = None) -> tuple[Any, Any]:
        own = jax.tree_util.tree_map_with_path(lambda path, _: multipliers(config, path), gradients)
        scaled = jax.tree.map(lambda g, m: g / m.epsilon, gradients, own)
        updates, state = adam.update(scaled, state, params)
        return jax.tree.map(lambda u, m: u * m.rate, updates, own), state

    return optax.GradientTransformation(adam.init, update)


def row_rule(config: Config) -> SparseOptimizer | None:
    """The tables' optimizer; None where they train as dense weights do."""
    name, strength = config.optim.table_optimizer, config.train.warm.fisher_weight
    if name == "adamw":
        return None
    return (
        anchored_rows(SPARSE_OPTIMIZERS[name](), strength)
        if strength
        else SPARSE_OPTIMIZERS[name]()
    )


def init_state(model: nn.Module, tx: Optimizer, batch: Batch, key: jax.Array) -> TrainState:
    """A fresh state; jit it with output shardings to create it where it will live."""
    fresh = model.init(key, batch)
    params, _ = split(fresh["params"])
    if tx.layout.arrays:
        params[TABLES] = create(tx.layout, key, model.config.table_init, model.config.effects)
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, params, tx.init(params), zero, zero, fresh.get(STATISTICS, {}))


def abstract_state(model: nn.Module, tx: Optimizer, batch: Batch) -> TrainState:
    """Shapes and types of `init_state`'s result; nothing is computed."""
    return jax.eval_shape(lambda b: init_state(model, tx, b, jax.random.key(0)), batch)
