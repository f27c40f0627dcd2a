"""The optimizer of a run: Adam for dense parameters, a sparse optimizer for tables.

Gradients are clipped by the global norm of dense parameters and table rows together.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import optax

from ligr_jax.config import ModelConfig, OptimConfig
from ligr_jax.nn.mup import multipliers
from ligr_jax.tables.exchange import StoredTables, TableGrads, update_tables
from ligr_jax.tables.layout import Layout
from ligr_jax.tables.placements import Lists
from ligr_jax.tables.sparse import SPARSE_OPTIMIZERS, SparseOptimizer, UpdateScalars
from ligr_jax.tables.table import TABLES, is_table
from ligr_jax.train.ewc import add_fisher_penalty, penalized_rows
from ligr_jax.train.schedules import rate_schedule

Params = Any
OptState = Any


class ScaleParams(NamedTuple):
    """The numbers of `OptimConfig` that only scale updates.

    They may be traced, so that runs with different values share one compiled program.
    """

    dense_lr: float | jax.Array
    table_lr: float | jax.Array
    weight_decay: float | jax.Array

    @classmethod
    def from_config(cls, config: OptimConfig) -> "ScaleParams":
        return cls(
            dense_lr=config.dense_lr,
            table_lr=config.table_lr,
            weight_decay=config.weight_decay,
        )


class Grads(NamedTuple):
    """Gradients of a step.

    Attributes:
        dense: pytree like the dense parameters; like all parameters if tables train densely.
        rows: gradients of table rows by stored array, as `reduce_row_grads` returns them.
    """

    dense: Params
    rows: Mapping[str, jax.Array]


@dataclass(frozen=True)
class Optimizer:
    """Optimizers of dense parameters and of tables, with one clipping of both.

    Attributes:
        dense: transformation of the gradients of dense parameters.
        sparse: optimizer of table rows; None if tables train as dense parameters do.
        table_schedule: learning rate of the tables.
        clip: transformation of all gradients together.
        table_decay: decoupled weight decay of table rows.
        layout: layout of the stored tables.
    """

    dense: optax.GradientTransformation
    sparse: SparseOptimizer | None
    table_schedule: optax.Schedule
    clip: optax.GradientTransformation
    table_decay: float
    layout: Layout

    def init(self, params: Params) -> OptState:
        """Return the initial state for parameters whose tables are as stored."""
        if self.sparse is None:
            return {"dense": self.dense.init(params)}
        dense, tables = split_tables(params)
        rows = {name: self.sparse.init(array) for name, array in tables.items()}
        return {"dense": self.dense.init(dense), "rows": rows}

    def update(
        self,
        params: Params,
        opt_state: OptState,
        grads: Grads,
        unique_ids: Lists,
        step: jax.Array,
        apply: jax.Array,
    ) -> tuple[Params, OptState]:
        """Return parameters and optimizer state after a step.

        Args:
            params: parameters before the step.
            opt_state: state before the step.
            grads: gradients of the step, not clipped.
            unique_ids: unique ids of the batch by table.
            step: number of steps before this one.
            apply: bool []; if false, the step is skipped and nothing changes.
        """
        (dense_grads, row_grads), _ = self.clip.update(grads, optax.EmptyState())
        dense, tables = split_tables(params) if self.sparse else (params, {})
        dense_state = opt_state["dense"]

        def apply_dense() -> tuple[Any, Any]:
            updates, new_state = self.dense.update(dense_grads, dense_state, dense)
            return optax.apply_updates(dense, updates), new_state

        new_dense, new_state = jax.lax.cond(apply, apply_dense, lambda: (dense, dense_state))
        if self.sparse is None:
            return new_dense, {"dense": new_state}
        stored = update_tables(
            self.layout,
            self.sparse,
            StoredTables(arrays=tables, states=opt_state["rows"]),
            TableGrads(unique_ids=unique_ids, by_array=row_grads),
            UpdateScalars(rate=self.table_schedule(step), step=step, decay=self.table_decay),
            apply,
        )
        params = {**new_dense, TABLES: stored.arrays}
        return params, {"dense": new_state, "rows": stored.states}


def split_tables(params: Params) -> tuple[Params, dict[str, jax.Array]]:
    """Return the parameters without their tables, and the tables."""
    dense = {name: x for name, x in params.items() if name != TABLES}
    return dense, dict(params.get(TABLES, {}))


def make_optimizer(
    model: ModelConfig,
    optim: OptimConfig,
    steps: int,
    layout: Layout,
    *,
    fisher_weight: float = 0.0,
    scale: ScaleParams | None = None,
) -> Optimizer:
    """Return the optimizer of a run.

    Dense parameters train at `optim.dense_lr`, times the multipliers of `ligr_jax.nn.mup`. Tables
    train at `optim.table_lr`.

    Args:
        model: configuration of the model, for the multipliers.
        optim: rates, schedule, clipping and weight decay.
        steps: number of steps of the run, for the schedules.
        layout: layout of the model's tables.
        fisher_weight: weight of the Fisher penalty (`ligr_jax.train.ewc`); 0 for none.
        scale: rates and weight decay in place of the configuration's, e.g. traced ones.
    """
    scale = scale or ScaleParams.from_config(optim)
    table_schedule = rate_schedule(optim, scale.table_lr, steps)
    sparse = make_sparse_optimizer(optim.table_optimizer, fisher_weight)
    dense = optax.chain(
        *([add_fisher_penalty(fisher_weight)] if fisher_weight else []),
        _scale_by_adam(model),
        optax.add_decayed_weights(scale.weight_decay, _is_kernel),
        optax.scale_by_learning_rate(rate_schedule(optim, scale.dense_lr, steps)),
    )
    if sparse is None:
        tables = optax.adamw(table_schedule, weight_decay=optim.table_weight_decay)
        dense = optax.multi_transform({"table": tables, "dense": dense}, _table_or_dense)
    return Optimizer(
        dense=dense,
        sparse=sparse,
        table_schedule=table_schedule,
        clip=optax.clip_by_global_norm(optim.clip) if optim.clip else optax.identity(),
        table_decay=optim.table_weight_decay,
        layout=layout,
    )


def make_sparse_optimizer(name: str, fisher_weight: float = 0.0) -> SparseOptimizer | None:
    """Return the optimizer of the table rows; None if tables train as dense parameters do.

    Args:
        name: `optim.table_optimizer`.
        fisher_weight: weight of the Fisher penalty on the rows; 0 for none.
    """
    if name == "adamw":
        return None
    optimizer = SPARSE_OPTIMIZERS[name]()
    return penalized_rows(optimizer, fisher_weight) if fisher_weight else optimizer


def _is_kernel(params: Params) -> Params:
    # By name, not by rank: stacked layers, experts and calibration curves store vectors in 2-D
    # arrays.
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def _table_or_dense(params: Params) -> Params:
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "table" if is_table(path) else "dense", params
    )


def _scale_by_adam(config: ModelConfig) -> optax.GradientTransformation:
    """Return Adam with a learning-rate and an epsilon multiplier for each parameter.

    The state is that of `optax.scale_by_adam`. An epsilon multiplied by c is the gradient divided
    by c: m / (sqrt(v) + c eps) = (m / c) / (sqrt(v / c^2) + eps).
    """
    adam = optax.scale_by_adam()

    def update(grads: Any, state: Any, params: Params | None = None) -> tuple[Any, Any]:
        by_param = jax.tree_util.tree_map_with_path(
            lambda path, _: multipliers(config, path), grads
        )
        scaled = jax.tree.map(lambda g, m: g / m.epsilon, grads, by_param)
        updates, state = adam.update(scaled, state, params)
        return jax.tree.map(lambda u, m: u * m.rate, updates, by_param), state

    return optax.GradientTransformation(adam.init, update)
