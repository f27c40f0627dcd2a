"""What a run will cost, before it starts: from its configuration and a sample of its data."""

import json
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from ligr_jax.config import Config
from ligr_jax.cost.flops import parameter_counts, train_flops
from ligr_jax.cost.memory import activation_bytes
from ligr_jax.cost.traced import traced_activation_bytes
from ligr_jax.data.assemble import Assembler
from ligr_jax.data.packing import PackingPlan
from ligr_jax.data.pipeline import plan_for
from ligr_jax.data.records import Records
from ligr_jax.data.schema import BadInput
from ligr_jax.nn.models import make_model
from ligr_jax.nn.work import Work
from ligr_jax.parallel.probe import Devices, describe_devices
from ligr_jax.tables.layout import layout
from ligr_jax.train.length import number_of_steps, work_of_a_row
from ligr_jax.train.optimizer import make_optimizer
from ligr_jax.train.preflight import require_rows_for_ids
from ligr_jax.train.state import abstract_state

# First guesses, of the demo's runs on two cores: seconds to start, compile and evaluate; seconds of
# a step beside its FLOPs; share of the peak those reach. Finished runs correct what comes of them.
_START, _STEP, _SHARE = 12.0, 0.004, 0.3

T = TypeVar("T")


@dataclass(frozen=True)
class Estimate:
    """steps, tokens and `flops_model` of a run; its parameters; bytes of its training state
    (weights, tables, optimizer), and of a device that trains it (with gradients and activations;
    tables whole, as without a mesh); seconds from its start to its summary, on this machine."""

    steps: int
    tokens: float
    flops: float
    dense: int
    tables: int
    state_bytes: int
    memory_bytes: int
    seconds: float


class Estimator:
    """Estimates the points of a sweep; what they share is found once."""

    def __init__(self, data: Path, devices: Callable[[str], Devices] = describe_devices) -> None:
        """
        Args:
            data: The prepared directory.
            devices: The devices that will train, by the type of activations.
        """
        self._devices = devices
        self._data = data
        self._known: dict[str, Any] = {}

    def __call__(self, config: Config) -> Estimate:
        """Shape-checks the whole run; nothing of the model is computed.

        Raises:
            BadInput: the train split is empty.
        """
        rows = (asdict(config.data), config.train.seed if config.data.fraction < 1 else 0)
        edges = config.data.edges
        records = self._once("records", edges, lambda: Records(self._data, edges))
        features = asdict(config.model)["features"]
        self._once("ids", features, lambda: require_rows_for_ids(config.model, records))
        plan: PackingPlan = self._once("plan", rows, lambda: plan_for(records, config, "train"))
        if not len(plan):
            raise BadInput(f"{self._data}: the train split has no impressions")
        row: Work = self._once(
            "work", (rows, config.model.mask), lambda: work_of_a_row(config, records, plan)
        )
        steps = number_of_steps(config, plan, row)
        work = Work(*(x * steps * config.optim.batch for x in astuple(row)))
        # Rates change no shape, and a sweep may have many.
        optim = replace(config.optim, dense_lr=1.0, table_lr=1.0)
        shape = (asdict(config.model), asdict(optim), config.data.seq_len)
        counts, size = self._once("state", shape, lambda: _state(config, records, plan))
        flops = train_flops(config.model, work)
        devices = self._devices(config.model.dtype)
        on_cpu = devices.backend == "cpu"
        shared = -(-config.optim.batch // (config.optim.accumulate * devices.count))
        if config.model.kind == "ligr":
            kept = activation_bytes(config, shared, on_cpu)
        else:
            kept = self._once(
                "kept", (shape, shared), lambda: _traced_bytes(config, records, plan, shared)
            )
        speed = _SHARE * devices.peak * devices.count
        return Estimate(
            steps=steps,
            tokens=2 * work.impressions,
            flops=flops,
            dense=counts["dense"],
            tables=counts["tables"],
            state_bytes=size,
            memory_bytes=size + 4 * counts["dense"] + kept,
            seconds=_START + _STEP * steps + flops / speed,
        )

    def _once(self, kind: str, key: Any, make: Callable[[], T]) -> T:
        text = json.dumps([kind, key])
        if text not in self._known:
            self._known[text] = make()
        found: T = self._known[text]
        return found


def _state(config: Config, records: Records, plan: PackingPlan) -> tuple[dict[str, int], int]:
    """Parameters by group, and bytes of the training state."""
    batch = Assembler(records, plan, config.model)(np.zeros(1, np.int64))
    tx = make_optimizer(config, 1, layout(config.model.tables))
    # A scanned stack is traced once, whatever its depth, and has the same parameters.
    state = abstract_state(make_model(replace(config.model, unroll="no")), tx, batch)
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    return parameter_counts(config.model, state.params), size


def _traced_bytes(config: Config, records: Records, plan: PackingPlan, rows: int) -> int:
    one = Assembler(records, plan, config.model)(np.zeros(1, np.int64))
    return traced_activation_bytes(config.model, one, rows)
