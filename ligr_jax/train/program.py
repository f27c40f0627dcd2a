"""A configuration on a mesh: model, optimizer, tables, and the sharding of all arrays."""

from functools import cached_property
from typing import Any

import jax
import numpy as np

from ligr_jax.config import Config, served_config
from ligr_jax.cost.devices import device_memory
from ligr_jax.data.batch import Batch
from ligr_jax.data.padding import padding_batch
from ligr_jax.data.pipeline import Process
from ligr_jax.data.unique_ids import MappedBatch
from ligr_jax.nn.models import make_model
from ligr_jax.parallel.mesh import make_mesh, replicated, shard_batch, shardings
from ligr_jax.tables.layout import Layout
from ligr_jax.tables.planner import TablePlan, plan_tables
from ligr_jax.train.optimizer import (
    Optimizer,
    ScaleParams,
    make_optimizer,
    make_sparse_optimizer,
)
from ligr_jax.train.state import TrainState, abstract_state, init_state
from ligr_jax.train.step import Step, make_step

_LARGE = 2**22  # entries of tables
_TABLE_SHARE = 0.6  # of a device's memory; activations and dense parameters need the rest
_LARGEST_MEMORY = 2.0**50  # bytes, where the memory of a device is not known


class Program:
    """The compiled functions and the array placement that training and evaluation share.

    Attributes:
        config: configuration of the run.
        mesh: devices of the run.
        process: the part of a batch that this process reads.
        plan: placement of each table, with reasons.
        layout: layout of the stored tables.
        model: the model.
        served: the model with the mask of evaluation and serving; its parameters are those of
            `model`.
        tx: its optimizer.
    """

    def __init__(self, config: Config, steps: int = 1) -> None:
        """
        Args:
            config: configuration of the run.
            steps: number of steps of the run, for schedules; array shapes do not depend on it.

        Raises:
            ConfigError: the mesh is impossible, or the tables do not fit on it.
        """
        self.config = config
        self.mesh = make_mesh(config)
        self.process = Process(
            index=jax.process_index(),
            count=jax.process_count(),
            devices=len(self.mesh.local_devices),
        )
        shape = (self.mesh.shape["data"], self.mesh.shape["model"])
        self.plan: TablePlan = place_tables(config, shape, device_memory())
        self.layout: Layout = self.plan.layout
        self.model = make_model(config.model)
        self.served = make_model(served_config(config).model)
        self.tx = self.make_optimizer(steps)

    def make_optimizer(self, steps: int, scale: ScaleParams | None = None) -> Optimizer:
        """Return the optimizer of the configuration; see `ligr_jax.train.optimizer`."""
        return make_optimizer(
            self.config.model,
            self.config.optim,
            steps,
            self.layout,
            fisher_weight=self.config.train.warm.fisher_weight,
            scale=scale,
        )

    def shard_batch(self, inputs: MappedBatch) -> MappedBatch:
        """Move a batch from the host to the mesh; each process passes its part."""
        return shard_batch(inputs, self.mesh)

    def abstract_state(self) -> TrainState:
        """Return shapes, types and shardings of a training state, allocating nothing."""
        return self._abstract_state

    @cached_property
    def _abstract_state(self) -> TrainState:
        """No shape of the state depends on the batch, so one trace of the model serves all uses."""
        batch = padding_batch(self.config.model, 1, self.config.data.seq_len // 2)
        with jax.set_mesh(self.mesh):
            shapes = abstract_state(self.model, self.tx, batch)
        placed = shardings(shapes, self.mesh, self.layout, self.config.mesh.fsdp)
        result: TrainState = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, placed
        )
        return result

    def init_state(self, batch: Batch) -> TrainState:
        """Return a new state, created on its devices: no device ever holds a whole sharded table.

        Args:
            batch: a batch of the shapes that the model will see.
        """
        init = self.compile_init(batch)
        state: TrainState = init(key_data(self.config.train.seed), batch)
        return state

    def compile_init(self, batch: Batch) -> Any:
        """Compile `(key data, batch) -> state`.

        It runs once, so XLA optimizes it only if tables are large.
        """
        large = sum(rows * width for rows, width in self.config.model.tables.values()) > _LARGE
        init = jax.jit(
            lambda key, b: init_state(self.model, self.tx, b, jax.random.wrap_key_data(key)),
            out_shardings=jax.tree.map(lambda x: x.sharding, self.abstract_state()),
            compiler_options={} if large else {"xla_backend_optimization_level": 0},
        )
        with jax.set_mesh(self.mesh):
            return init.lower(key_data(0), batch).compile()

    def make_step(self) -> Step:
        """Return the training step of the configuration, not compiled."""
        key = jax.random.key(self.config.train.seed)
        return make_step(self.model, self.tx, self.config.optim, key, self.config.mesh.fsdp)

    def compile_step(self, inputs: MappedBatch) -> Any:
        """Compile the training step `(state, inputs) -> (state, metrics)`, with its state donated.

        Args:
            inputs: result of `shard_batch`.
        """
        abstract = self.abstract_state()
        state_shardings = jax.tree.map(lambda x: x.sharding, abstract)
        step = jax.jit(
            self.make_step(),
            out_shardings=(state_shardings, replicated(self.mesh)),
            donate_argnums=0,
        )
        with jax.set_mesh(self.mesh):
            return step.lower(abstract, inputs).compile()


def key_data(seed: int) -> np.ndarray:
    """Return the random key of a seed on the host, uint32 [2]; equal in every process."""
    return np.asarray(jax.random.key_data(jax.random.key(seed)))


def place_tables(config: Config, mesh: tuple[int, int], memory: float) -> TablePlan:
    """Return the placement of the tables of a configuration.

    Args:
        config: configuration of the run.
        mesh: devices of the axes `data` and `model`.
        memory: bytes of one device. Tables may take `mesh.table_gib`, or by default 60 % of it.

    Raises:
        ConfigError: the tables do not fit.
    """
    data, model = mesh
    budget = config.mesh.table_gib * 2**30 or _TABLE_SHARE * min(memory, _LARGEST_MEMORY)
    return plan_tables(
        config.model,
        _ids_per_device(config, data * model),
        data,
        model,
        make_sparse_optimizer(config.optim.table_optimizer, config.train.warm.fisher_weight),
        int(budget),
        config.mesh.placement,
    )


def _ids_per_device(config: Config, devices: int) -> dict[str, int]:
    """Return how many ids of each table a device looks up in a step."""
    impressions = config.optim.batch * (config.data.seq_len // 2) // devices
    ids = dict.fromkeys(config.model.tables, 0)
    for name, feature in config.model.features.items():
        if feature.has_table:
            ids[config.model.table_of(name)] += impressions * feature.ids_each
    return ids
