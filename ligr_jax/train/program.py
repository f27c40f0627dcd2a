"""A configuration on a mesh: its model, its optimizer, its tables, and where arrays live."""

import os
from typing import Any

import jax
import numpy as np

from ligr_jax.config import Config
from ligr_jax.data.batch import Batch
from ligr_jax.data.pipeline import Process
from ligr_jax.data.unique_ids import UniqueIds
from ligr_jax.nn.models import make_model
from ligr_jax.parallel.mesh import make_mesh, of_lists, over_rows, put, replicated, shardings
from ligr_jax.tables.layout import Layout
from ligr_jax.tables.planner import TablePlan, plan_tables
from ligr_jax.train.state import TrainState, abstract_state, init_state, optimizer, row_rule
from ligr_jax.train.step import make_step

_LARGE = 2**22  # entries of tables
_FOR_TABLES = 0.6  # of a device's memory; the rest is for activations and dense weights


class Program:
    """What training and evaluation share.

    Attributes:
        mesh: the devices of the run.
        process: the part of a batch this process reads.
        plan: which table goes where, and why.
        model, tx: the model, and its optimizer.
    """

    def __init__(self, config: Config, steps: int = 1) -> None:
        """steps: how long the schedule is; shapes do not depend on it.

        Raises:
            ConfigError: the mesh cannot be, or the tables do not fit on it.
        """
        self.config, self.mesh = config, make_mesh(config)
        local = len(self.mesh.local_devices)
        self.process = Process(jax.process_index(), jax.process_count(), local)
        self.plan: TablePlan = plan_tables(
            config.model,
            _ids_of_a_device(config, self.mesh.size),
            self.mesh.shape["data"],
            self.mesh.shape["model"],
            row_rule(config),
            int(config.mesh.table_gib * 2**30) or _memory_for_tables(),
            config.mesh.placement,
        )
        self.layout: Layout = self.plan.layout
        self.model = make_model(config.model)
        self.tx = optimizer(config, steps, self.layout)

    def put(self, batch: Batch, lists: dict[str, UniqueIds]) -> tuple[Batch, dict[str, UniqueIds]]:
        """A batch and its lists from the host on the mesh, each process giving its part."""
        where = of_lists(self.mesh)
        return put(batch, over_rows(self.mesh)), {
            t: UniqueIds(*(None if x is None else put(x, s) for x, s in zip(d, where)))
            for t, d in lists.items()
        }

    def like(self, batch: Batch) -> TrainState:
        """Shapes, types and places of a training state; nothing is allocated."""
        with jax.set_mesh(self.mesh):
            state = abstract_state(self.model, self.tx, batch)
        where = shardings(state, self.mesh, self.layout, self.config.mesh.fsdp)
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, where
        )

    def fresh(self, batch: Batch) -> TrainState:
        """A fresh state, made where it lives: no device ever holds a whole table it shares."""
        state: TrainState = self.compile_fresh(batch)(key_data(self.config.train.seed), batch)
        return state

    def compile_fresh(self, batch: Batch) -> Any:
        """The program `(key data, batch) -> state` of `fresh`: run once, it is optimized only where
        tables are large."""
        large = sum(v * e for v, e in self.config.model.tables.values()) > _LARGE
        make = jax.jit(
            lambda key, b: init_state(self.model, self.tx, b, jax.random.wrap_key_data(key)),
            out_shardings=jax.tree.map(lambda x: x.sharding, self.like(batch)),
            compiler_options={} if large else {"xla_backend_optimization_level": 0},
        )
        with jax.set_mesh(self.mesh):
            return make.lower(key_data(0), batch).compile()

    def compile(self, batch: Batch, lists: dict[str, UniqueIds]) -> Any:
        """The training step `(state, batch, lists) -> (state, metrics)`, its state donated.

        Args:
            batch: a batch on the mesh, as `put` returns it.
            lists: its unique ids by table, as `put` returns them.
        """
        like = self.like(batch)
        state = jax.tree.map(lambda x: x.sharding, like)
        step = jax.jit(
            make_step(self.model, self.tx, self.config),
            out_shardings=(state, replicated(self.mesh)),
            donate_argnums=0,
        )
        with jax.set_mesh(self.mesh):
            return step.lower(like, batch, lists).compile()


def key_data(seed: int) -> np.ndarray:
    """The random key of a seed on the host, uint32 [2]: the same in every process."""
    return np.asarray(jax.random.key_data(jax.random.key(seed)))


def _ids_of_a_device(config: Config, devices: int) -> dict[str, int]:
    """How many ids of each table a device looks up in a step."""
    impressions = config.optim.batch * (config.data.seq_len // 2) // devices
    ids = dict.fromkeys(config.model.tables, 0)
    for name, feature in config.model.features.items():
        if feature.has_table:
            ids[config.model.table_of(name)] += impressions * feature.ids_each
    return ids


def _memory_for_tables() -> int:
    """Bytes of one device that tables and their optimizer's state may take."""
    told = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    if not told:  # a CPU, shared by the devices simulated on it
        pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        told = pages // jax.local_device_count()
    return int(_FOR_TABLES * told)
