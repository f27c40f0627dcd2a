"""Runs that train as one compiled program: stacked states, a vmapped step, one recorder per run."""

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
from ligr_jax.data.post_row import at_post_row
from ligr_jax.data.records import Records
from ligr_jax.data.unique_ids import MappedBatch
from ligr_jax.progress import Progress
from ligr_jax.runs.columns import metric_name
from ligr_jax.runs.directory import clear_error, write_error
from ligr_jax.stop import StopRequest, stop_request
from ligr_jax.train.evaluate import Evaluator
from ligr_jax.train.loop import (
    EvaluationStopped,
    advance,
    preempted,
    splits_to_measure,
    stop_between_batches,
)
from ligr_jax.train.measure import Predictions, gather_predictions, measure
from ligr_jax.train.measure_shown import measure_shown
from ligr_jax.train.optimizer import ScaleParams
from ligr_jax.train.prefetch import Prefetch
from ligr_jax.train.program import Program, key_data
from ligr_jax.train.recorder import RunRecorder, TrainingDiverged
from ligr_jax.train.state import TrainState
from ligr_jax.train.step import Metrics, make_step

_log = logging.getLogger(__name__)

RUNS = P("runs")  # leading axis of stacked states, sharded over the devices
REPLICATED = P()


class RunSlot(NamedTuple):
    """One run of a `RunBatch`.

    Attributes:
        config: configuration of the run.
        recorder: writer of its directory.
        state: training state to start from, on the host.
        batches: state of its batch iterator.
    """

    config: Config
    recorder: RunRecorder
    state: TrainState
    batches: Mapping[str, int]


class RunBatch:
    """Runs at the same step that train together; `advance` takes them through their steps.

    Every device trains the same number of runs. If their number is not divisible by the number of
    devices, the last run is duplicated as padding, and results of the copies are discarded.

    Attributes:
        config: configuration of the first run, for the values that all runs share.
        steps: number of steps of each run.
        stop: the stop request of the process, while the runs train.
        inputs: batches on their devices, while the runs train.
        slots: the runs, by index in the stack.
        active: runs that have not diverged, by index in the stack.
        failed: error of each run that has diverged, by directory.
    """

    stop: StopRequest
    inputs: Prefetch

    def __init__(
        self, slots: Sequence[RunSlot], program: Program, records: Records, steps: int
    ) -> None:
        """
        Args:
            slots: the runs.
            program: program of one run on one device.
            records: prepared data.
            steps: number of steps of a whole run.
        """
        self.slots = slots
        self.records = records
        self.steps = steps
        self.program = program
        self.config = slots[0].config
        self.first_step = int(slots[0].state.step)
        self.active = dict(enumerate(slots))
        self.failed: dict[Path, str] = {}
        devices = jax.devices()[: self.config.mesh.data or None]
        self.runs_per_device = math.ceil(len(slots) / len(devices))
        used_devices = devices[: math.ceil(len(slots) / self.runs_per_device)]
        self.mesh = Mesh(np.array(used_devices), ("runs",))
        self.batches: dict[int, TrainBatches] = {}  # by seed
        for slot in slots:
            seed = slot.config.train.seed
            if seed not in self.batches:
                plan = plan_for(records, slot.config, "train")
                # The shuffle of a seed changes the packing only by chance, so one value serves all.
                self.packing = plan.packing
                self.batches[seed] = train_batches(records, plan, slot.config, program.process)
                self.batches[seed].set_state(slot.batches)
        self.by_run = self.stack(
            (key_data(slot.config.train.seed), ScaleParams.from_config(slot.config.optim))
            for slot in slots
        )
        self.evaluator = Evaluator(program, records)
        self.logits = self._vmap_over_runs(self.evaluator.apply, (RUNS, REPLICATED))
        self.progress = Progress(steps, _log)

    def run(self) -> dict[Path, str]:
        """Train to the end and write the summaries.

        Returns:
            The error of each run that has diverged, by directory.
        """
        began = time.perf_counter()
        state = self.stack(slot.state for slot in self.slots)
        self.step_fn = self.lower_step(state).compile()
        prefetch = Prefetch(list(self.batches.values()), self._to_devices)
        with prefetch as self.inputs, stop_request() as stop, contextlib.ExitStack() as opened:
            for slot in self.slots:
                slot.recorder.start_seconds = time.perf_counter() - began
                recording = slot.recorder.open(
                    self.first_step, slot.state.params, self.mesh.size, runs=len(self.slots)
                )
                opened.enter_context(recording)
            self.stop = stop
            stop.defer()
            # `read` raises this error when no run is left; each run has its own error then.
            with contextlib.suppress(TrainingDiverged):
                state = advance(self, state, self.first_step)
                self._finish(state)
        return self.failed

    def lower_step(self, state: TrainState) -> jax.stages.Lowered:
        """Return the step of all runs, `(by_run, state, inputs) -> (state, metrics)`, to compile.

        `by_run` has the random key and the `ScaleParams` of each run, so other seeds and rates do
        not compile again.
        """
        program = self.program

        def step(
            by_run: tuple[jax.Array, ScaleParams], state: TrainState, inputs: MappedBatch
        ) -> tuple[TrainState, Metrics]:
            key, scale = by_run
            tx = program.make_optimizer(self.steps, scale)
            step_of_run = make_step(
                program.model, tx, program.config.optim, jax.random.wrap_key_data(key)
            )
            return step_of_run(state, inputs)

        input_spec = REPLICATED if len(self.batches) == 1 else RUNS
        vmapped = self._vmap_over_runs(step, (RUNS, RUNS, input_spec), donate_argnums=1)
        example = self._to_devices([batches.peek() for batches in self.batches.values()])
        lowered: jax.stages.Lowered = vmapped.lower(self.by_run, state, example)
        return lowered

    def _vmap_over_runs(
        self, function: Callable[..., Any], specs: tuple[P, ...], **jit_options: Any
    ) -> Any:
        """Return a function of one run mapped over all runs; they share `REPLICATED` arguments."""
        axes = tuple(0 if spec == RUNS else None for spec in specs)
        vmapped = jax.vmap(function, in_axes=axes)
        sharded = jax.shard_map(
            vmapped, mesh=self.mesh, in_specs=specs, out_specs=RUNS, check_vma=False
        )
        return jax.jit(sharded, **jit_options)

    def stack(self, trees: Iterable[Any]) -> Any:
        """Stack one host tree per run, and padding, along a new leading axis on the devices."""
        padded = list(trees)
        padded += padded[-1:] * (self.runs_per_device * self.mesh.size - len(padded))
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *padded)
        return jax.device_put(stacked, NamedSharding(self.mesh, RUNS))

    def _to_devices(self, batches: Sequence[MappedBatch]) -> Any:
        """Return the input of the step: one batch for all runs, or one batch per run.

        Args:
            batches: one batch of each seed, in the order of `self.batches`.
        """
        if len(batches) == 1:
            return jax.device_put(batches[0], NamedSharding(self.mesh, REPLICATED))
        by_seed = dict(zip(self.batches, batches))
        return self.stack(by_seed[slot.config.train.seed] for slot in self.slots)

    def step(self, state: TrainState) -> tuple[TrainState, Any]:
        inputs, waited = self.inputs.next(in_flight=state)
        for slot in self.active.values():
            slot.recorder.meter.waited(waited)
        new_state, metrics = self.step_fn(self.by_run, state, inputs)
        return new_state, metrics

    def read(self, number: int, metrics: Any) -> None:
        """Add a step's metrics to the records. A run that diverged gets its error and is removed.

        Raises:
            TrainingDiverged: no run is left.
        """
        by_name = jax.device_get(metrics)
        rows = []
        for index, slot in list(self.active.items()):
            values = {name: float(by_run[index]) for name, by_run in by_name.items()}
            try:
                rows.append(slot.recorder.add_step(number, values))
            except TrainingDiverged as e:
                directory = slot.recorder.directory
                _log.error(f"{directory}: {e}")
                write_error(directory, str(e))
                self.failed[directory] = str(e)
                del self.active[index]
        if not self.active:
            raise TrainingDiverged("all runs diverged")
        logged = [row for row in rows if row]
        if logged:
            losses = [row["train/loss"] for row in logged]
            speed = float(np.mean([row[metric_name("tokens_per_s")] for row in logged]))
            note = f"{len(logged)} runs  loss {min(losses):.4f} to {max(losses):.4f}"
            self.progress.show(number, f"{note}  {speed:,.0f} tok/s")

    def evaluate(self, number: int, state: TrainState) -> None:
        for slot in self.active.values():
            slot.recorder.evaluation_due = True
        for index, metrics in self._measure(state, "validation").items():
            self.active[index].recorder.add_evaluation(number, metrics)

    @property
    def evaluation_due(self) -> bool:
        return any(slot.recorder.evaluation_due for slot in self.active.values())

    def _measure(self, state: TrainState, split: str) -> dict[int, dict[str, Any]]:
        """Return metrics of a split by index in the stack, as `Evaluator` does for one run.

        Raises:
            EvaluationStopped: a signal requested a stop.
        """
        config = self.evaluator.config
        metrics = {
            run: measure(predictions, self.records, config, split)
            for run, predictions in self._predict(state, split, config.eval.position).items()
        }
        if config.model.post_feature:
            for run, shown in self._predict(state, split, position=0).items():
                metrics[run] |= measure_shown(shown, self.records, config.model, split)
        return metrics

    def _predict(self, state: TrainState, split: str, position: int) -> dict[int, Predictions]:
        """Return predictions by index in the stack. Every batch is read once for all runs.

        Args:
            state: stacked states.
            split: train, validation or test.
            position: row of the post feature, as in `Evaluator.batches`.

        Raises:
            EvaluationStopped: a signal requested a stop.
        """
        plan = self.evaluator.plan(split)
        config = self.program.config
        replicated = NamedSharding(self.mesh, REPLICATED)
        parts: list[tuple[Any, Any, Any, Any]] = []
        for index, inputs in eval_batches(self.records, plan, config, self.program.process):
            inputs = inputs._replace(batch=at_post_row(inputs.batch, config.model, position))
            logits = self.logits(state, jax.device_put(inputs, replicated))
            if parts:  # the previous batch is copied while the devices compute this one
                parts[-1] = (*parts[-1][:3], np.asarray(parts[-1][3]))
            parts.append((index, inputs.batch.weight > 0, inputs.batch.labels, logits))
            stop_between_batches(self.stop)
        predictions = {}
        for run in self.active:
            of_run = [(i, targets, labels, np.asarray(z)[run]) for i, targets, labels, z in parts]
            predictions[run] = gather_predictions(of_run, len(config.model.actions))
        return predictions

    def save(self, number: int, state: TrainState) -> None:
        """Save each run's state on one device, as a run that trains alone does."""
        host_state = jax.device_get(state)
        states = dict(zip(self.batches, self.inputs.states))
        one_device = NamedSharding(self.program.mesh, REPLICATED)
        for index, slot in self.active.items():
            # A copy: a view could show memory that the next step overwrites.
            of_run = jax.tree.map(lambda x, k=index: np.array(x[k]), host_state)
            of_run = jax.device_put(of_run, one_device)
            slot.recorder.save(number, of_run, states[slot.config.train.seed])

    def wait(self) -> None:
        for slot in self.active.values():
            slot.recorder.checkpoints.wait()

    def _finish(self, state: TrainState) -> None:
        """Evaluate the final states and write a summary for each run."""
        began = time.perf_counter()
        splits = splits_to_measure(self.config, self.records)
        try:
            by_split = [self._measure(state, split) for split in splits]
        except EvaluationStopped:
            raise preempted(self, self.steps) from None
        seconds = time.perf_counter() - began
        bad_steps = jax.device_get(state.bad_total)
        # XLA counts the FLOPs of one device.
        device_flops = (self.step_fn.cost_analysis() or {}).get("flops")
        flops = device_flops / self.runs_per_device if device_flops else None
        for index, slot in self.active.items():
            slot.recorder.finish(
                evaluations=[metrics[index] for metrics in by_split],
                eval_seconds=seconds,
                packing=self.packing,
                bad_steps=int(bad_steps[index]),
                flops_xla=flops,
            )
            clear_error(slot.recorder.directory)
