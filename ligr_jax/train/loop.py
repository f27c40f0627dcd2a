"""The training loop: prepared data and a configuration in, a finished run directory out.

Killed at any moment and started again, it goes on from its newest checkpoint and ends with the same
parameters, bit for bit, as if it had never stopped (same devices).
"""

import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import jax

from ligr_jax.config import Config, ConfigError, config_from_json, config_to_json, difference
from ligr_jax.data.assemble import crowded_tables
from ligr_jax.data.packing import PackingPlan
from ligr_jax.data.pipeline import TrainBatches, plan_for, train_batches
from ligr_jax.data.records import Records
from ligr_jax.data.unique_ids import MappedBatch
from ligr_jax.exit_status import PREEMPTED
from ligr_jax.parallel.processes import broadcast_from_first, is_first, ready, stop_agreed
from ligr_jax.progress import Progress
from ligr_jax.runs.directory import finished, lock, write_or_verify_config
from ligr_jax.runs.wandb_check import check_wandb
from ligr_jax.stop import StopRequest, stop_request
from ligr_jax.train.data import open_verified
from ligr_jax.train.evaluate import Evaluator
from ligr_jax.train.incremental import warm_start
from ligr_jax.train.length import steps_of
from ligr_jax.train.preflight import require_trainable
from ligr_jax.train.program import Program
from ligr_jax.train.record import Record
from ligr_jax.train.save_clock import SaveClock
from ligr_jax.train.state import TrainState

_log = logging.getLogger(__name__)


class Preempted(SystemExit):
    """A signal asked to stop; the state is saved, and the same command continues from it."""

    def __init__(self) -> None:
        super().__init__(PREEMPTED)


def train(config: Config, out: Path) -> dict[str, Any]:
    """Trains to the end, evaluates, and returns the summary; a finished run is returned as it is.

    Raises:
        ConfigError: `out` holds another run, or the configuration does not fit the data.
        Busy: another process is training this run.
        TrainingDiverged: `train.max_bad_steps` non-finite steps in a row.
        Preempted: A signal asked to stop; everything is saved.
    """
    done = finished(out, config)
    if done is None:
        with lock(out) if is_first() else contextlib.nullcontext():
            _require_one_configuration(config, out)
            done = finished(out, config)  # by another process meanwhile
            if done is None:
                if is_first():  # of several processes, the one that mirrors
                    check_wandb(config.track)
                write_or_verify_config(out, config, is_first())
                data = config.data
                records = open_verified(data.dir, data.edges, data.digest)
                require_trainable(config, records)
                return Trainer(config, records, out).run()
    _log.info(f"{out} is finished; nothing to do")
    return done


def _require_one_configuration(config: Config, out: Path) -> None:
    """Raise ConfigError where process 0 of this run has another configuration."""
    first = config_from_json(broadcast_from_first(f"config/{out.name}", config_to_json(config)))
    changed = difference(first, config)
    if changed:
        lines = "\n".join(f"  {k}: there {a!r}, here {b!r}" for k, (a, b) in changed.items())
        raise ConfigError(
            f"the configuration differs from that of process 0 of this run:\n{lines}\n"
            "start all processes with the same arguments"
        )


def splits_to_measure(config: Config, records: Records) -> list[str]:
    """Of `eval.splits`, those that hold something."""
    return [s for s in config.eval.splits if records.manifest.splits[s].impressions]


def peek(batches: TrainBatches) -> MappedBatch:
    """The next batch, without moving the iterator."""
    place = batches.get_state()
    batch = next(batches)
    batches.set_state(place)
    return batch


class EvaluationStopped(Exception):
    """A signal asked to stop while a split was measured."""


class Training(Protocol):
    """What `advance` takes through its steps: one run, or several together."""

    config: Config
    steps: int
    stop: StopRequest

    @property
    def evaluation_due(self) -> bool:
        """Whether the state was saved while its evaluation was interrupted."""

    def step(self, state: TrainState) -> tuple[TrainState, Any]:
        """Dispatches the step of the next batch."""

    def read(self, number: int, metrics: Any) -> None:
        """Waits for a step's metrics, and takes them in."""

    def evaluate(self, number: int, state: TrainState) -> None:
        """Raises EvaluationStopped: a signal asked to stop; the evaluation is still due."""

    def save(self, number: int, state: TrainState) -> None: ...

    def wait(self) -> None:
        """Returns when all saves are on disk."""


def advance(training: Training, state: TrainState, first: int) -> TrainState:
    """Steps after `first` to the end; the metrics of step n are read after n + 1 is dispatched.

    Raises:
        Preempted: A stop was requested; everything is saved.
    """
    c, steps = training.config.train, training.steps
    clock = SaveClock(c.checkpoint_minutes, first)
    pending: Any = None
    if stop_agreed(training.stop) or (training.evaluation_due and _stops(training, first, state)):
        raise halted(training, first)
    for number in range(first + 1, steps + 1):
        state, metrics = training.step(state)
        if pending:
            training.read(number - 1, pending)
        pending = metrics
        stopping = stop_agreed(training.stop)
        save = number % c.checkpoint_every == 0 or number == steps or stopping or clock.due(number)
        evaluate = c.eval_every and number % c.eval_every == 0 and number < steps
        if save or evaluate:
            training.read(number, pending)
            pending = None
        if evaluate:  # before saving: a run killed between the two does it again
            stopping = _stops(training, number, state) or stopping
        if save or stopping:
            training.save(number, state)
            clock.saved()
        if stopping and number < steps:
            raise halted(training, number)
    return state


def _stops(training: Training, number: int, state: TrainState) -> bool:
    """Evaluate; whether a stop was requested meanwhile."""
    try:
        training.evaluate(number, state)
    except EvaluationStopped:
        return True
    return False


def halted(training: Training, number: int) -> Preempted:
    """Wait for the saves and print the last line of a run that a signal stopped."""
    training.wait()
    _log.warning(stopped(training.stop, number))
    return Preempted()


def stopped(stop: StopRequest, number: int) -> str:
    """The last line of a run that a signal stopped."""
    return f"stopped by {stop.reason} at step {number}; the same command continues from it"


def stop_between_batches(stop: StopRequest) -> None:
    """Raise EvaluationStopped if a stop was requested; called for each batch of an evaluation."""
    if stop_agreed(stop):
        raise EvaluationStopped


class Trainer:
    """Everything one run needs, built before the first step."""

    def __init__(self, config: Config, records: Records, out: Path) -> None:
        self.config, self.records = config, records
        for line in crowded_tables(config.model, records.manifest):
            _log.info(line)
        self.plan: PackingPlan = plan_for(records, config, "train")
        self.steps = steps_of(config, records, self.plan)
        self.program = Program(config, self.steps)
        self.mesh = self.program.mesh
        if not config.mesh.data and self.mesh.size < jax.device_count():
            _log.info(
                f"optim.batch={config.optim.batch} uses {self.mesh.size} of {jax.device_count()} "
                f"devices; a multiple of {jax.device_count() * config.optim.accumulate} uses all"
            )
        if config.mesh.model > 1:
            for line in self.program.plan.lines():
                _log.info(line)
        self.evaluator = Evaluator(self.program, records)
        self.batches = train_batches(records, self.plan, config, self.program.process)
        self.record = Record(config, out, self.steps, self.program.layout)
        self.progress = Progress(self.steps, _log)

    def run(self) -> dict[str, Any]:
        began = time.perf_counter()
        state, self.step_fn, flops_xla = self._start()
        self.record.start_seconds = time.perf_counter() - began
        first = int(state.step)
        if first:
            _log.info(f"resuming at step {first} of {self.steps}")
        devices = self.mesh.size
        with stop_request() as stop, self.record.open(first, state.params, devices):
            self.stop = stop
            ready(stop)
            state = advance(self, state, first)
            summary = self._finish(state, flops_xla)
        self.batches.close()
        return summary

    def _start(self) -> tuple[TrainState, Callable[..., Any], float | None]:
        """The state, restored or fresh, and the compiled step with XLA's count of its FLOPs."""
        example = self.program.shard_batch(peek(self.batches))
        restored = self.record.restore(self.program.abstract_state(example.batch))
        if restored is None:
            state = self.program.init_state(example.batch)
            if self.config.train.warm.run:
                state = warm_start(self.config, self.program.layout, state)
        else:
            state, place = restored
            self.batches.set_state(place)
        compiled = self.program.compile_step(example)
        # XLA counts what one device does.
        per_device = (compiled.cost_analysis() or {}).get("flops")
        return state, compiled, per_device * self.mesh.size if per_device else None

    def step(self, state: TrainState) -> tuple[TrainState, Any]:
        waiting = time.perf_counter()
        inputs = self.program.shard_batch(next(self.batches))
        self.record.meter.waited(time.perf_counter() - waiting)
        return self.step_fn(state, inputs)

    def read(self, number: int, metrics: Any) -> None:
        row = self.record.read(number, {k: float(v) for k, v in jax.device_get(metrics).items()})
        if row:
            note = f"loss {row['train/loss']:.4f}  {row['tokens_per_s']:,.0f} tok/s"
            self.progress.show(number, note)

    def evaluate(self, number: int, state: TrainState) -> None:
        self.record.evaluation_due = True
        self.record.evaluated(number, self._measure(state, "validation"))

    @property
    def evaluation_due(self) -> bool:
        return self.record.evaluation_due

    def _measure(self, state: TrainState, split: str) -> dict[str, Any]:
        return self.evaluator(state, split, lambda *_: stop_between_batches(self.stop))

    def save(self, number: int, state: TrainState) -> None:
        self.record.save(number, state, self.batches.get_state())

    def wait(self) -> None:
        self.record.checkpoints.wait()

    def _finish(self, state: TrainState, flops_xla: float | None) -> dict[str, Any]:
        """Evaluates the final state and writes summary.json."""
        began = time.perf_counter()
        splits = splits_to_measure(self.config, self.records)
        try:
            measured = [self._measure(state, split) for split in splits]
        except EvaluationStopped:
            raise halted(self, self.steps) from None
        return self.record.finish(
            measured,
            time.perf_counter() - began,
            self.plan.packing,
            int(state.bad_total),
            flops_xla,
        )
