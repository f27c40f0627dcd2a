"""Estimate of a run's cost before it starts, from its configuration and a sample of its data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from ligr_jax.config import Config, ConfigError, digest
from ligr_jax.cost.flops import parameter_counts, train_flops
from ligr_jax.cost.memory import activation_bytes
from ligr_jax.cost.traced import traced_activation_bytes
from ligr_jax.data.assemble import Assembler
from ligr_jax.data.manifest import Manifest
from ligr_jax.data.packing_plan import PackingPlan
from ligr_jax.data.pipeline import plan_for
from ligr_jax.data.records import Records
from ligr_jax.data.schema import BadInput
from ligr_jax.nn.models import make_model
from ligr_jax.nn.work import Work
from ligr_jax.parallel.mesh import mesh_shape
from ligr_jax.parallel.probe import Devices, describe_devices
from ligr_jax.tables.layout import layout
from ligr_jax.train.feed import tokens_made, tokens_wanted
from ligr_jax.train.length import number_of_steps, pair_shape, work_of_a_row
from ligr_jax.train.optimizer import make_optimizer
from ligr_jax.train.preflight import require_rows_for_ids, require_validation_rows
from ligr_jax.train.program import place_tables
from ligr_jax.train.state import abstract_state

# Measured with the demo's runs on two cores. `calibrate_seconds` scales the resulting estimates by
# the time of finished runs.
_START_S = 12.0  # to start, compile and evaluate
_STEP_S = 0.004  # overhead of a step
_PEAK_SHARE = 0.3  # fraction of peak FLOPs per second that a step reaches

T = TypeVar("T")


@dataclass(frozen=True)
class Estimate:
    """Estimated cost of a run.

    Attributes:
        steps: optimizer steps.
        tokens: tokens of all steps, two per impression.
        flops: `flops_model` of all steps.
        dense: dense parameters.
        tables: parameters of embedding tables.
        state_bytes: bytes of the training state: weights, tables and optimizer.
        memory_bytes: peak bytes of a device: the state, gradients and activations. Tables are not
            sharded in this number.
        seconds: seconds from the start of the run to its summary, on this machine.
        tokens_per_s: tokens per second that the devices want (`ligr_jax.train.feed`).
    """

    steps: int
    tokens: float
    flops: float
    dense: int
    tables: int
    state_bytes: int
    memory_bytes: int
    seconds: float
    tokens_per_s: float


class Estimator:
    """Estimates the points of a sweep; results that points have in common are cached."""

    def __init__(
        self,
        data: Path,
        devices: Callable[[str], Devices] = describe_devices,
        listed: Mapping[str, Mapping[str, Any]] = {},
    ) -> None:
        """
        Args:
            data: directory of prepared data.
            devices: function from the data type of activations to the devices that will train.
            listed: estimates of an earlier call, by the digest of the configuration. Their sizes
                are taken as they are, because tracing a model takes most of an estimate's time.
        """
        self._listed = listed
        self._devices = devices
        self._data = data
        self._cache: dict[str, Any] = {}

    def __call__(self, config: Config) -> Estimate:
        """Return the estimate of a run; shapes are checked, but no array is computed.

        Args:
            config: configuration of the run.

        Raises:
            BadInput: the train split is empty.
            ConfigError: the configuration does not fit the data.
        """
        records, plan, steps, work = self._work(config)
        # Learning rates do not change shapes, and a sweep may have many of them.
        optim = replace(config.optim, dense_lr=1.0, table_lr=1.0)
        shape = (config.model, optim, config.data.seq_len)
        listed = self._listed.get(digest(config), {}) if self._listed else {}
        if all(isinstance(listed.get(name), int) for name in ("dense", "tables", "state_bytes")):
            counts = {name: listed[name] for name in ("dense", "tables")}
            size = listed["state_bytes"]
        else:
            counts, size = self._cached("state", shape, lambda: _state(config, records, plan))
        flops = train_flops(config.model, work)
        devices = self._devices(config.model.dtype)
        on_cpu = devices.backend == "cpu"
        shared = -(-config.optim.batch // (config.optim.accumulate * devices.count))
        if config.model.kind == "ligr":
            kept = activation_bytes(config, shared, on_cpu)
        else:
            kept = self._cached(
                "kept", (shape, shared), lambda: _traced_bytes(config, records, plan, shared)
            )
        flops_per_s = _PEAK_SHARE * devices.peak * devices.count
        return Estimate(
            steps=steps,
            tokens=2 * work.impressions,
            flops=flops,
            dense=counts["dense"],
            tables=counts["tables"],
            state_bytes=size,
            memory_bytes=size + 4 * counts["dense"] + kept,
            seconds=_START_S + _STEP_S * steps + flops / flops_per_s,
            tokens_per_s=tokens_wanted(config.model, work, devices.peak * devices.count),
        )

    def flops(self, config: Config) -> float:
        """Return the FLOPs of a run; the model is not traced.

        Args:
            config: configuration of the run.

        Raises:
            BadInput: the train split is empty.
            ConfigError: the configuration does not fit the data.
        """
        return train_flops(config.model, self._work(config)[-1])

    def _work(self, config: Config) -> tuple[Records, PackingPlan, int, Work]:
        """Return the data of a run, the plan of its train split, its steps, and their work."""
        rows = (config.data, config.train.seed if config.data.fraction < 1 else 0)
        edges = config.data.edges
        records = self._cached("records", edges, lambda: Records(self._data, edges))
        self._cached(
            "ids", config.model.features, lambda: require_rows_for_ids(config.model, records)
        )
        require_validation_rows(config, records)
        plan: PackingPlan = self._cached("plan", rows, lambda: plan_for(records, config, "train"))
        if not len(plan):
            raise BadInput(f"{self._data}: the train split has no impressions")
        row: Work = self._cached(
            "work",
            (rows, pair_shape(config.model)),
            lambda: work_of_a_row(config.model, records, plan),
        )
        steps = number_of_steps(config.train, config.model, config.optim.batch, len(plan), row)
        return records, plan, steps, row * (steps * config.optim.batch)

    def problem(self, config: Config, cost: Estimate) -> str:
        """Return why a run cannot train on these devices, or "" if nothing speaks against it.

        Only what is certain counts: the mesh, the tables, and the smallest memory of the state.

        Args:
            config: configuration of the run.
            cost: its estimate.
        """
        devices = self._devices(config.model.dtype)
        try:
            mesh = mesh_shape(config.mesh, config.optim, devices.count)
            rows = (config.optim.batch, config.data.seq_len, config.optim.table_optimizer)
            warm = config.train.warm.fisher_weight
            tables = self._cached(
                "tables",
                (config.model.features, config.model.table_width, config.mesh, mesh, rows, warm),
                lambda: place_tables(config, mesh, devices.memory).stored,
            )
        except ConfigError as e:
            return str(e)
        dense = 3 * 4 * cost.dense // (mesh[0] if config.mesh.fsdp else 1)
        if tables + dense > devices.memory:
            return (
                f"weights and optimizer need {(tables + dense) / 2**30:.1f} GiB per device, and "
                f"there are {devices.memory / 2**30:.1f} GiB ({devices.kind}); use more devices "
                "with mesh.model or mesh.fsdp=true, or a smaller model"
            )
        return ""

    def _cached(self, kind: str, key: Any, make: Callable[[], T]) -> T:
        """Return `make()`, which runs once for each `kind` and `key`."""
        text = f"{kind} {key!r}"
        if text not in self._cache:
            self._cache[text] = make()
        value: T = self._cache[text]
        return value


def rough_flops(config: Config, manifest: Manifest) -> float:
    """Return the FLOPs of a run from the manifest of its data alone, as if no row had padding.

    The numbers order the points of a sweep by size, on a machine that does not have the data.

    Args:
        config: configuration of the run.
        manifest: manifest of its data.
    """
    impressions = config.data.seq_len // 2
    rows = -(-manifest.splits["train"].impressions // impressions)
    pairs = config.data.seq_len**2 / 2
    of_streams = config.model.depth * impressions**2 / 2
    row = Work(
        impressions=impressions,
        history_pairs=pairs,
        set_pairs=pairs,
        stream_pairs=of_streams,
        range_pairs=of_streams,
    )
    batch = config.optim.batch
    steps = number_of_steps(config.train, config.model, batch, rows, row)
    return train_flops(config.model, row) * steps * batch


def host_speed(config: Config, data: Path) -> float:
    """Measure the tokens per second that one core of this host makes for a run on its data."""
    records = Records(data, config.data.edges)
    made, _ = tokens_made(records, plan_for(records, config, "train"), config, devices=1)
    return made


def _state(config: Config, records: Records, plan: PackingPlan) -> tuple[dict[str, int], int]:
    """Return the number of parameters by group, and the bytes of the training state."""
    batch = Assembler(records, plan, config.model)(np.zeros(1, np.int64))
    tx = make_optimizer(
        config.model,
        config.optim,
        1,
        layout(config.model.tables),
        fisher_weight=config.train.warm.fisher_weight,
    )
    # A scanned stack of layers is traced once for any depth, and its parameters are the same.
    state = abstract_state(make_model(replace(config.model, unroll="no")), tx, batch)
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    return parameter_counts(config.model, state.params), size


def _traced_bytes(config: Config, records: Records, plan: PackingPlan, rows: int) -> int:
    """Return the bytes of activations of `rows` rows, from the traced program."""
    one = Assembler(records, plan, config.model)(np.zeros(1, np.int64))
    return traced_activation_bytes(config.model, one, rows)
