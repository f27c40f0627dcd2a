"""The device's side of training together: K states stacked, one mapped step, a record for each."""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ligr_jax.config import Config
from ligr_jax.data.pipeline import TrainBatches, eval_batches, plan_for, train_batches
from ligr_jax.data.records import Records
from ligr_jax.data.unique_ids import MappedBatch
from ligr_jax.progress import Progress
from ligr_jax.runs.directory import clear_error, write_error
from ligr_jax.stop import stop_request
from ligr_jax.train.evaluate import Evaluator, gather, measure
from ligr_jax.train.loop import (
    EvaluationStopped,
    advance,
    halted,
    peek,
    splits_to_measure,
    stop_between_batches,
)
from ligr_jax.train.optimizer import ScaleParams, make_optimizer
from ligr_jax.train.program import Program, key_data
from ligr_jax.train.record import Record, TrainingDiverged
from ligr_jax.train.state import TrainState
from ligr_jax.train.step import Metrics, make_step

_log = logging.getLogger(__name__)

RUNS = P("runs")  # the leading axis of states, in equal parts, one a device


class Member(NamedTuple):
    """A run of a group.

    state: where it goes on, on the host.
    batches: the place of its next batch.
    """

    config: Config
    record: Record
    state: TrainState
    batches: Mapping[str, int]


class Group:
    """Runs at one step that go on together; what `advance` takes through its steps.

    Each device trains equally many runs whole. Where their number does not divide evenly, the last
    run is repeated to fill the devices, and what the copies do is nobody's.
    """

    def __init__(
        self,
        members: Sequence[Member],
        program: Program,
        records: Records,
        steps: int,
    ) -> None:
        """
        Args:
            program: of one run on one device.
            steps: of a whole run.
        """
        self.members, self.records, self.steps = members, records, steps
        self.program, self.config = program, members[0].config
        self.first = int(members[0].state.step)
        self.live = dict(enumerate(members))  # by place in the stack; those that diverge go
        self.failed: dict[Path, str] = {}
        devices = jax.devices()[: self.config.mesh.data or None]
        self.each = math.ceil(len(members) / len(devices))  # runs of a device
        self.mesh = Mesh(np.array(devices[: math.ceil(len(members) / self.each)]), ("runs",))
        self.batches: dict[int, TrainBatches] = {}  # by seed
        for member in members:
            seed = member.config.train.seed
            if seed not in self.batches:
                plan = plan_for(records, member.config, "train")
                self.packing = plan.packing  # of every seed: a shuffle packs as well as any other
                self.batches[seed] = train_batches(records, plan, member.config, program.process)
                self.batches[seed].set_state(member.batches)
        self.by_run = self.stacked(
            (key_data(m.config.train.seed), ScaleParams.from_config(m.config.optim))
            for m in members
        )
        self.evaluator = Evaluator(program, records)
        # Jitted for all devices: the states of every run, a batch of all.
        self.logits = self._on_devices(self.evaluator.apply, (RUNS, P()))
        self.progress = Progress(steps, _log)

    def run(self) -> dict[Path, str]:
        """Trains to the end and writes the summaries; last words of the runs that diverged."""
        began = time.perf_counter()
        state = self.stacked(m.state for m in self.members)
        self.step_fn = self.lowered(state).compile()
        for m in self.members:
            m.record.start_seconds = time.perf_counter() - began
        with stop_request() as stop, contextlib.ExitStack() as opened:
            for m in self.members:
                share = (self.mesh.size, len(self.members))
                opened.enter_context(m.record.open(self.first, m.state.params, *share))
            self.stop = stop
            stop.defer()
            with contextlib.suppress(TrainingDiverged):  # `read` raises it where no run is left
                state = advance(self, state, self.first)
                self._finish(state)
        for batches in self.batches.values():
            batches.close()
        return self.failed

    def lowered(self, state: TrainState) -> jax.stages.Lowered:
        """Return the step of all runs, `(by_run, state, inputs) -> (state, metrics)`, to compile.

        `by_run` has the random key and the `ScaleParams` of each run.
        """
        program, config = self.program, self.program.config

        def step(
            by_run: tuple[jax.Array, ScaleParams], state: TrainState, inputs: MappedBatch
        ) -> tuple[TrainState, Metrics]:
            key, scale = by_run
            tx = make_optimizer(config, self.steps, program.layout, scale)
            one = make_step(program.model, tx, config.optim, jax.random.wrap_key_data(key))
            return one(state, inputs)

        of_batch = P() if len(self.batches) == 1 else RUNS
        mapped = self._on_devices(step, (RUNS, RUNS, of_batch), donate_argnums=1)
        example = self._put({seed: peek(batches) for seed, batches in self.batches.items()})
        return mapped.lower(self.by_run, state, example)

    def _on_devices(self, function: Callable[..., Any], specs: tuple[P, ...], **jit: Any) -> Any:
        """A function of one run for all of them; what is not `RUNS` they share."""
        axes = tuple(0 if spec == RUNS else None for spec in specs)
        mapped = jax.vmap(function, in_axes=axes)
        return jax.jit(
            jax.shard_map(mapped, mesh=self.mesh, in_specs=specs, out_specs=RUNS, check_vma=False),
            **jit,
        )

    def stacked(self, trees: Iterable[Any]) -> Any:
        """A host tree of each run -> one on the devices, with a leading axis of runs."""
        each = list(trees)
        each += each[-1:] * (self.each * self.mesh.size - len(each))
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *each)
        return jax.device_put(stacked, NamedSharding(self.mesh, RUNS))

    def _put(self, batches: Mapping[int, MappedBatch]) -> Any:
        """Batches by seed -> what the step takes: one that all share, or one for each run."""
        if len(batches) == 1:
            (only,) = batches.values()
            return jax.device_put(only, NamedSharding(self.mesh, P()))
        return self.stacked(batches[m.config.train.seed] for m in self.members)

    def step(self, state: TrainState) -> tuple[TrainState, Any]:
        waiting = time.perf_counter()
        inputs = self._put({seed: next(batches) for seed, batches in self.batches.items()})
        for m in self.live.values():
            m.record.meter.waited(time.perf_counter() - waiting)
        return self.step_fn(self.by_run, state, inputs)

    def read(self, number: int, metrics: Any) -> None:
        """Takes in a step's metrics; a run that diverged has its last words written, and is out.

        Raises:
            TrainingDiverged: no run is left.
        """
        values, rows = jax.device_get(metrics), []
        for place, m in list(self.live.items()):
            try:
                rows.append(m.record.read(number, {k: float(v[place]) for k, v in values.items()}))
            except TrainingDiverged as e:
                _log.error(f"{m.record.out}: {e}")
                write_error(m.record.out, str(e))
                self.failed[m.record.out] = str(e)
                del self.live[place]
        if not self.live:
            raise TrainingDiverged("every run of the group")
        logged = [row for row in rows if row]
        if logged:
            losses = [row["train/loss"] for row in logged]
            speed = float(np.mean([row["tokens_per_s"] for row in logged]))
            note = f"{len(logged)} runs  loss {min(losses):.4f} to {max(losses):.4f}"
            self.progress.show(number, f"{note}  {speed:,.0f} tok/s")

    def evaluate(self, number: int, state: TrainState) -> None:
        for m in self.live.values():
            m.record.evaluation_due = True
        for place, numbers in self._measured(state, "validation").items():
            self.live[place].record.evaluated(number, numbers)

    @property
    def evaluation_due(self) -> bool:
        return any(m.record.evaluation_due for m in self.live.values())

    def _measured(self, state: TrainState, split: str) -> dict[int, dict[str, Any]]:
        """Metrics of a split by place in the stack; every batch is read once, for all runs."""
        plan, config = self.evaluator.plan(split), self.program.config
        shared = NamedSharding(self.mesh, P())
        parts: list[tuple[Any, Any, Any, Any]] = []
        for index, inputs in eval_batches(self.records, plan, config, self.program.process):
            logits = self.logits(state, jax.device_put(inputs, shared))
            if parts:  # the one before, while this one is computed
                parts[-1] = (*parts[-1][:3], np.asarray(parts[-1][3]))
            parts.append((index, inputs.batch.weight > 0, inputs.batch.labels, logits))
            stop_between_batches(self.stop)
        found = {}
        for place in self.live:
            own = [(i, targets, y, np.asarray(z)[place]) for i, targets, y, z in parts]
            predictions = gather(own, len(config.model.actions))
            found[place] = measure(predictions, self.records, config, split)
        return found

    def save(self, number: int, state: TrainState) -> None:
        """As each run alone would: its own state, on one device."""
        host = jax.device_get(state)
        device = NamedSharding(self.program.mesh, P())
        for place, m in self.live.items():
            # Copied: a view may be of memory that the next step writes over.
            own = jax.tree.map(lambda x, k=place: np.array(x[k]), host)
            own = jax.device_put(own, device)
            m.record.save(number, own, self.batches[m.config.train.seed].get_state())

    def wait(self) -> None:
        for m in self.live.values():
            m.record.checkpoints.wait()

    def _finish(self, state: TrainState) -> None:
        """Evaluates the final states, and writes a summary for each."""
        began = time.perf_counter()
        splits = splits_to_measure(self.config, self.records)
        try:
            measured = [self._measured(state, split) for split in splits]
        except EvaluationStopped:
            raise halted(self, self.steps) from None
        seconds, bad_steps = time.perf_counter() - began, jax.device_get(state.bad_total)
        # XLA counts what one device does.
        of_device = (self.step_fn.cost_analysis() or {}).get("flops")
        flops = of_device / self.each if of_device else None
        for place, m in self.live.items():
            evaluations = [found[place] for found in measured]
            bad = int(bad_steps[place])
            m.record.finish(evaluations, seconds, self.packing, bad, flops)
            clear_error(m.record.out)
