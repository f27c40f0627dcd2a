"""What a step reads and writes: parameters, optimizer state, and how many steps went bad."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from ligr_jax.config import OptimConfig
from ligr_jax.data.batch import Batch
from ligr_jax.tables.sparse import RULES, RowRule, join, split, update_rows
from ligr_jax.tables.table import is_table

Params = Any
OptState = Any
Rows = Mapping[str, jax.Array]  # distinct rows of a batch by feature, as the pipeline lists them
NOBODYS = 2**30  # added to a row, gives one that no table has


class TrainState(NamedTuple):
    """step: steps taken, bad ones included; bad_in_row, bad_total: non-finite ones, not applied."""

    step: jax.Array
    params: Params
    opt_state: OptState
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


@dataclass(frozen=True)
class Optimizer:
    """Adam for dense weights, a row rule for the tables; clipping by the norm of both together.

    rule: None where tables train densely, as weights like others with a rate of their own.
    """

    dense: optax.GradientTransformation
    rule: RowRule | None
    rate: optax.Schedule
    clip: optax.GradientTransformation
    decay: float

    def init(self, params: Params) -> OptState:
        if self.rule is None:
            return {"dense": self.dense.init(params)}
        dense, tables = split(params)
        rows = {name: self.rule.init(table) for name, table in tables.items()}
        return {"dense": self.dense.init(dense), "rows": rows}

    def update(
        self, state: "TrainState", gradients: Any, rows: Rows, good: jax.Array
    ) -> tuple[Params, OptState]:
        """Parameters and state after a step; unchanged where it was not `good`.

        gradients: of the dense weights, and of the rows of each table.
        """
        (of_dense, of_rows), _ = self.clip.update(gradients, optax.EmptyState())
        dense, tables = split(state.params) if self.rule else (state.params, {})

        def move() -> tuple[Any, Any]:
            updates, kept = self.dense.update(of_dense, state.opt_state["dense"], dense)
            return optax.apply_updates(dense, updates), kept

        # No condition around tables, or XLA would copy them: a bad step's rows are nobody's.
        new_dense, kept = jax.lax.cond(good, move, lambda: (dense, state.opt_state["dense"]))
        if self.rule is None:
            return new_dense, {"dense": kept}
        new = {
            name: update_rows(
                self.rule,
                table,
                state.opt_state["rows"][name],
                rows[name] + jnp.where(good, 0, NOBODYS),
                of_rows[name],
                self.rate(state.step),
                self.decay,
                state.step,
            )
            for name, table in tables.items()
        }
        new_tables, new_rows = ({name: x[i] for name, x in new.items()} for i in (0, 1))
        return join(state.params, new_dense, new_tables), {"dense": kept, "rows": new_rows}


def optimizer(config: OptimConfig, steps: int) -> Optimizer:
    """The optimizer of a configuration: `dense_lr` for dense weights, `table_lr` for tables."""

    def matrices(params: Params) -> Params:
        return jax.tree.map(lambda p: p.ndim > 1, params)

    def labels(params: Params) -> Params:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "table" if is_table(path) else "dense", params
        )

    table_rate = schedule(config, config.table_lr, steps)
    dense = optax.adamw(
        schedule(config, config.dense_lr, steps), weight_decay=config.weight_decay, mask=matrices
    )
    rule = None
    if config.table_optimizer == "adamw":
        tables = optax.adamw(table_rate, weight_decay=config.table_weight_decay)
        dense = optax.multi_transform({"table": tables, "dense": dense}, labels)
    else:
        rule = RULES[config.table_optimizer]()
    clip = optax.clip_by_global_norm(config.clip) if config.clip else optax.identity()
    return Optimizer(dense, rule, table_rate, clip, config.table_weight_decay)


def init_state(model: nn.Module, tx: Optimizer, batch: Batch, seed: int) -> TrainState:
    """A fresh state; jit it with output shardings to create it where it will live."""
    params = model.init(jax.random.key(seed), batch)["params"]
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, params, tx.init(params), zero, zero)


def abstract_state(
    model: nn.Module, tx: Optimizer, batch: Batch, where: jax.sharding.Sharding
) -> TrainState:
    """Shapes, types and sharding of `init_state`'s result; nothing is computed."""
    shapes = jax.eval_shape(lambda b: init_state(model, tx, b, seed=0), batch)
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where), shapes)
