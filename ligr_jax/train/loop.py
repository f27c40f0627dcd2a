"""The training loop: from prepared data and a configuration to a finished run directory.

A run that is killed and started again resumes from its newest checkpoint. On the same devices it
ends with the same parameters, bit for bit, as a run that was never interrupted.
"""

import contextlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import jax

from ligr_jax.config import Config, ConfigError, config_from_json, config_to_json, difference
from ligr_jax.data.assemble import crowded_tables
from ligr_jax.data.packing_plan import PackingPlan
from ligr_jax.data.pipeline import plan_for, train_batches
from ligr_jax.data.records import Records
from ligr_jax.data.unique_ids import MappedBatch
from ligr_jax.exit_status import PREEMPTED
from ligr_jax.parallel.processes import (
    broadcast_from_first,
    gather_texts,
    is_first,
    processes_of_host,
    ready,
    stop_agreed,
)
from ligr_jax.progress import Progress
from ligr_jax.runs.columns import metric_name
from ligr_jax.runs.directory import finished, lock, write_or_verify_config
from ligr_jax.runs.staged import stage_run
from ligr_jax.runs.trained_data import write_trained_data
from ligr_jax.runs.wandb_check import check_wandb
from ligr_jax.stop import StopRequest, stop_request
from ligr_jax.train.data import open_verified
from ligr_jax.train.evaluate import Evaluator
from ligr_jax.train.feed import measure_feed
from ligr_jax.train.incremental import warm_start
from ligr_jax.train.length import steps_of
from ligr_jax.train.prefetch import Prefetch
from ligr_jax.train.preflight import require_trainable
from ligr_jax.train.program import Program
from ligr_jax.train.recorder import RunRecorder
from ligr_jax.train.save_clock import SaveClock
from ligr_jax.train.state import TrainState

_log = logging.getLogger(__name__)


class Preempted(SystemExit):
    """A signal requested a stop. The state is saved, and the same command resumes the run."""

    def __init__(self) -> None:
        super().__init__(PREEMPTED)


class EvaluationStopped(Exception):
    """A signal requested a stop during an evaluation."""


def train(config: Config, out: Path) -> dict[str, Any]:
    """Train a run to its end and evaluate it. A finished run is not trained again.

    Args:
        config: configuration of the run.
        out: run directory, created if needed.

    Returns:
        The summary of the run.

    Raises:
        ConfigError: `out` has another run, or the configuration does not fit the data.
        Busy: another process trains this run.
        TrainingDiverged: `train.max_bad_steps` steps in a row were not finite.
        Preempted: a signal requested a stop; everything is saved.
    """
    summary = _summary_in_all(config, out)
    if summary is None:
        with lock(out) if is_first() else contextlib.nullcontext():
            _require_one_configuration(config, out)
            # Another process may have finished the run before it was locked here.
            summary = _summary_in_all(config, out, owned=True)
            if summary is None:
                if is_first():  # the only process that mirrors to W&B
                    check_wandb(config.track)
                write_or_verify_config(out, config, is_first())
                records = open_verified(config.data.dir, config.data.edges, config.data.digest)
                require_trainable(config, records)
                if is_first():
                    write_trained_data(out, records.digest, records.manifest)
                return Trainer(config, records, out).run()
    _log.info(f"{out} is finished; nothing to do")
    return summary


def _summary_in_all(config: Config, out: Path, owned: bool = False) -> dict[str, Any] | None:
    """Fetch the files of a run from its store, and return its summary if it is finished.

    Process 0 looks first, and the others follow it: the run may finish between two looks. When
    this returns, all processes have fetched the files, so they may be written.
    """
    summary = None
    if is_first():
        stage_run(out, owned)
        summary = finished(out, config)
    is_finished = gather_texts(f"finished/{out.name}", json.dumps(summary is not None))[0]
    if not is_first():
        stage_run(out, owned)
        summary = finished(out, config) if json.loads(is_finished) else None
    gather_texts(f"staged/{out.name}", "")
    return summary


def _require_one_configuration(config: Config, out: Path) -> None:
    """Raise ConfigError if process 0 of this run has another configuration."""
    first = config_from_json(broadcast_from_first(f"config/{out.name}", config_to_json(config)))
    changed = difference(first, config)
    if changed:
        lines = "\n".join(f"  {k}: there {a!r}, here {b!r}" for k, (a, b) in changed.items())
        raise ConfigError(
            f"the configuration differs from that of process 0 of this run:\n{lines}\n"
            "start all processes with the same arguments"
        )


def splits_to_measure(config: Config, records: Records) -> list[str]:
    """Return the splits of `eval.splits` that are not empty."""
    return [s for s in config.eval.splits if records.manifest.splits[s].impressions]


class Training(Protocol):
    """What `advance` takes through its steps: one run, or several vmapped runs.

    Attributes:
        config: configuration, for the intervals of evaluations and checkpoints.
        steps: number of steps of the whole run.
        stop: the stop request of the process.
    """

    config: Config
    steps: int
    stop: StopRequest

    @property
    def evaluation_due(self) -> bool:
        """Whether a signal interrupted the evaluation of the saved state."""

    def step(self, state: TrainState) -> tuple[TrainState, Any]:
        """Dispatch the step of the next batch; return the new state and the metrics."""

    def read(self, number: int, metrics: Any) -> None:
        """Wait for the metrics of a step and record them."""

    def evaluate(self, number: int, state: TrainState) -> None:
        """Evaluate a state on the validation split.

        Raises:
            EvaluationStopped: a signal requested a stop; the evaluation remains due.
        """

    def save(self, number: int, state: TrainState) -> None:
        """Save a state in the background."""

    def wait(self) -> None:
        """Return when all saves are on disk."""


def advance(training: Training, state: TrainState, first_step: int) -> TrainState:
    """Train from a step to the end.

    The host is at most two steps ahead of the devices, and the devices never wait for the host:
    metrics are read after the next step is dispatched, and only for a row of the log, a checkpoint
    or an evaluation.

    Args:
        training: the run or runs.
        state: state after `first_step`; its arrays are donated.
        first_step: number of steps that are done.

    Returns:
        The final state.

    Raises:
        Preempted: a signal requested a stop; everything is saved.
    """
    intervals = training.config.train
    clock = SaveClock(intervals.checkpoint_minutes, first_step)
    unread: list[tuple[int, Any]] = []  # steps and their metrics

    def read_all() -> None:
        for step, metrics in unread:
            training.read(step, metrics)
        unread.clear()

    # A stop request may precede the first step, and a resumed run may owe an evaluation.
    if stop_agreed(training.stop):
        raise preempted(training, first_step)
    if training.evaluation_due and _evaluation_is_stopped(training, first_step, state):
        raise preempted(training, first_step)

    for number in range(first_step + 1, training.steps + 1):
        state, metrics = training.step(state)
        if unread:
            jax.block_until_ready(unread[-1])
        if (number - 1) % intervals.log_every == 0:
            read_all()
        unread.append((number, metrics))

        # All processes decide the same, because they agree on the stop and on the clock.
        is_last = number == training.steps
        stopping = stop_agreed(training.stop)
        save = number % intervals.checkpoint_every == 0 or is_last or stopping or clock.due(number)
        evaluate = (
            intervals.eval_every and number % intervals.eval_every == 0 and number < training.steps
        )

        # The counts in the checkpoint and the rows on disk include this step.
        if save or evaluate:
            read_all()

        # Evaluate before saving, so that a run killed between the two evaluates again.
        if evaluate:
            stopping = _evaluation_is_stopped(training, number, state) or stopping
        if save or stopping:
            training.save(number, state)
            clock.saved()
        if stopping and not is_last:
            raise preempted(training, number)
    return state


def _evaluation_is_stopped(training: Training, number: int, state: TrainState) -> bool:
    """Evaluate; return whether a stop was requested meanwhile."""
    try:
        training.evaluate(number, state)
    except EvaluationStopped:
        return True
    return False


def preempted(training: Training, number: int) -> Preempted:
    """Wait for the saves, log the last message of a stopped run, and return its exception."""
    training.wait()
    _log.warning(stop_message(training.stop, number))
    return Preempted()


def stop_message(stop: StopRequest, number: int) -> str:
    """Return the last message of a run that a signal stopped."""
    return f"stopped by {stop.reason} at step {number}; the same command continues from it"


def stop_between_batches(stop: StopRequest) -> None:
    """Raise EvaluationStopped if a stop was requested; called for each batch of an evaluation."""
    if stop_agreed(stop):
        raise EvaluationStopped


class Trainer:
    """One run, with everything that its first step needs.

    Attributes:
        config: configuration of the run.
        steps: number of steps of the run.
        stop: the stop request of the process, while the run trains.
        inputs: batches on their devices, while the run trains.
    """

    stop: StopRequest
    inputs: Prefetch

    def __init__(self, config: Config, records: Records, out: Path) -> None:
        """
        Args:
            config: configuration of the run.
            records: prepared data.
            out: run directory.
        """
        self.config = config
        self.records = records
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
        self.batches = train_batches(
            records, self.plan, self._with_workers(config), self.program.process
        )
        self.recorder = RunRecorder(config, out, self.steps, self.program.layout)
        self.progress = Progress(self.steps, _log)

    def _with_workers(self, config: Config) -> Config:
        """Return the configuration with a number of loader processes, chosen if it is -1."""
        if config.data.workers >= 0 or jax.default_backend() == "cpu":
            return config
        feed = measure_feed(
            self.records, self.plan, config, self.program.process.devices, processes_of_host()
        )
        _log.info(f"{feed.line()}; data.workers={feed.workers}")
        return replace(config, data=replace(config.data, workers=feed.workers))

    def run(self) -> dict[str, Any]:
        """Train from the newest checkpoint to the end; return the summary."""
        began = time.perf_counter()
        state = self._start()
        first_step = int(state.step)
        if first_step:
            _log.info(f"resuming at step {first_step} of {self.steps}")
        recording = self.recorder.open(first_step, state.params, self.mesh.size)
        with Prefetch([self.batches], self._shard) as self.inputs, stop_request() as stop:
            self.recorder.start_seconds = time.perf_counter() - began
            with recording:
                self.stop = stop
                ready(stop)
                state = advance(self, state, first_step)
                return self._finish(state)

    def _start(self) -> TrainState:
        """Compile the step; return the restored state, or the initial one."""
        example = self.program.shard_batch(self.batches.peek())
        restored = self.recorder.restore(self.program.abstract_state())
        if restored is None:
            state = self.program.init_state(example.batch)
            if self.config.train.warm.run:
                state = warm_start(self.config, self.program.layout, state)
        else:
            state, position = restored
            self.batches.set_state(position)
        self.step_fn = self.program.compile_step(example)
        return state

    def _step_flops(self) -> float | None:
        """Return XLA's count of the FLOPs of a step on all devices; None if there is none."""
        device_flops = (self.step_fn.cost_analysis() or {}).get("flops")
        return device_flops * self.mesh.size if device_flops else None

    def _shard(self, batches: Sequence[MappedBatch]) -> MappedBatch:
        (batch,) = batches
        return self.program.shard_batch(batch)

    def step(self, state: TrainState) -> tuple[TrainState, Any]:
        inputs, waited = self.inputs.next(in_flight=state)
        self.recorder.meter.waited(waited)
        new_state, metrics = self.step_fn(state, inputs)
        return new_state, metrics

    def read(self, number: int, metrics: Any) -> None:
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        row = self.recorder.add_step(number, values)
        if row:
            speed = row[metric_name("tokens_per_s")]
            note = f"loss {row['train/loss']:.4f}  {speed:,.0f} tok/s"
            self.progress.show(number, note)

    def evaluate(self, number: int, state: TrainState) -> None:
        self.recorder.evaluation_due = True
        self.recorder.add_evaluation(number, self._measure(state, "validation"))

    @property
    def evaluation_due(self) -> bool:
        return self.recorder.evaluation_due

    def _measure(self, state: TrainState, split: str) -> dict[str, Any]:
        return self.evaluator(state, split, lambda *_: stop_between_batches(self.stop))

    def save(self, number: int, state: TrainState) -> None:
        self.recorder.save(number, state, self.inputs.states[0])

    def wait(self) -> None:
        self.recorder.checkpoints.wait()

    def _finish(self, state: TrainState) -> dict[str, Any]:
        """Evaluate the final state and write the summary."""
        began = time.perf_counter()
        splits = splits_to_measure(self.config, self.records)
        try:
            evaluations = [self._measure(state, split) for split in splits]
        except EvaluationStopped:
            raise preempted(self, self.steps) from None
        return self.recorder.finish(
            evaluations=evaluations,
            eval_seconds=time.perf_counter() - began,
            packing=self.plan.packing,
            bad_steps=int(state.bad_total),
            flops_xla=self._step_flops(),
        )
