"""The training loop: prepared data and a configuration in, a finished run directory out.

Killed at any moment and started again, it goes on from its newest checkpoint and ends with the same
parameters, bit for bit, as if it had never stopped (same devices).
"""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from ligr_jax.config import Config, flatten
from ligr_jax.data.assemble import crowded_tables
from ligr_jax.data.pipeline import TrainBatch, plan_for, train_batches
from ligr_jax.data.plan import Plan
from ligr_jax.data.records import Records
from ligr_jax.nn.flops import Work, compute_axes, parameter_counts
from ligr_jax.parallel.processes import is_first, stop_agreed
from ligr_jax.progress import Progress
from ligr_jax.train.checkpoint import Checkpoints
from ligr_jax.train.evaluate import Evaluator
from ligr_jax.train.length import number_of_steps, work_of_a_row
from ligr_jax.train.meter import Meter, Totals
from ligr_jax.train.preemption import on_sigterm
from ligr_jax.train.program import Program
from ligr_jax.train.run import PREEMPTED, adopt, claimed, load_summary, save_summary
from ligr_jax.train.state import TrainState, schedule
from ligr_jax.train.track import Tracker, tracking


class TrainingDiverged(RuntimeError):
    """Too many non-finite steps in a row; none of them was applied."""


class Preempted(SystemExit):
    """SIGTERM came; the state is saved, and the same command goes on from it."""


def train(config: Config, out: Path, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Trains to the end, evaluates, and returns the summary; a finished run is returned as it is.

    Raises:
        ConfigError: `out` holds another run, or the configuration does not fit the data.
        Busy: another process is training this run.
        TrainingDiverged: `train.max_bad_steps` non-finite steps in a row.
        Preempted: SIGTERM; everything is saved.
    """
    if not is_first():
        say = _silent
    with claimed(out) if is_first() else contextlib.nullcontext():
        adopt(out, config, write=is_first())
        done = load_summary(out)
        if done:
            say(f"{out} is finished; nothing to do")
            return done
        records = Records(config.data.dir)
        return Trainer(config, records, out, say).run()


def _silent(_: str) -> None:
    """Of several processes, the first speaks."""


class Trainer:
    """Everything one run needs, built before the first step."""

    def __init__(
        self, config: Config, records: Records, out: Path, say: Callable[[str], None]
    ) -> None:
        self.config, self.records, self.out, self.say = config, records, out, say
        for line in crowded_tables(config.model, records.manifest):
            say(line)
        self.plan: Plan = plan_for(records, config, "train")
        if not len(self.plan):
            raise ValueError(f"{records.directory}: the train split has no impressions")
        row = work_of_a_row(config, records, self.plan) if config.train.flops else Work()
        self.steps = number_of_steps(config, self.plan, row)
        self.program = Program(config, self.steps)
        self.mesh = self.program.mesh
        if config.mesh.model > 1:
            for line in self.program.plan.lines():
                say(line)
        self.evaluator = Evaluator(self.program, records)
        self.batches = train_batches(records, self.plan, config, self.program.process)
        self.checkpoints = Checkpoints(
            out / "checkpoints", config.train.keep, self.program.layout, say
        )
        self.totals = Totals()

    def run(self) -> dict[str, Any]:
        began = time.perf_counter()
        state, step_fn, xla_flops = self._start()
        self.start_seconds = time.perf_counter() - began
        first = int(state.step)
        self.parameters = parameter_counts(self.config.model, state.params)
        self.meter = Meter(self.config, self.parameters["dense"], self.mesh.size, self.totals)
        if first:
            self.say(f"resuming at step {first} of {self.steps}")
        stop = threading.Event()
        with tracking(self.out, self.config, first) as tracker, self._on_sigterm(stop):
            state = self._loop(state, step_fn, tracker, stop)
            summary = self._finish(state, tracker, xla_flops)
        self.checkpoints.close()
        self.batches.close()
        return summary

    def _start(self) -> tuple[TrainState, Callable[..., Any], float | None]:
        """The state, restored or fresh, and the compiled step with XLA's count of its FLOPs."""
        example = self.program.put(*self._peek())
        compiled = self.program.compile(*example)
        # XLA counts what one device does.
        per_device = (compiled.cost_analysis() or {}).get("flops")
        xla_flops = per_device * self.mesh.size if per_device else None
        restored = self.checkpoints.restore(self.program.like(example[0]))
        if restored is None:
            return self.program.fresh(example[0]), compiled, xla_flops
        state, meta = restored
        self.totals = Totals(**meta["totals"])
        self.batches.set_state(meta["batches"])
        return state, compiled, xla_flops

    def _on_sigterm(self, stop: threading.Event) -> contextlib.AbstractContextManager[None]:
        """Of several processes, JAX hears it, and they stop together."""
        return on_sigterm(stop.set) if jax.process_count() == 1 else contextlib.nullcontext()

    def learning_rates(self, step: int) -> dict[str, float]:
        """The rates that step `step` (counted from 1) used."""
        c = self.config.optim
        peaks = {"lr/dense": c.dense_lr, "lr/tables": c.table_lr}
        return {k: float(schedule(c, v, self.steps)(step - 1)) for k, v in peaks.items()}

    def _peek(self) -> TrainBatch:
        """The first batch, without moving the iterator."""
        place = self.batches.get_state()
        batch = next(self.batches)
        self.batches.set_state(place)
        return batch

    def _loop(
        self,
        state: TrainState,
        step_fn: Callable[..., Any],
        tracker: Tracker,
        stop: threading.Event,
    ) -> TrainState:
        """Steps to the end; the metrics of step n are read after step n + 1 is dispatched."""
        c = self.config.train
        progress = Progress(self.steps, self.say)
        pending: Any = None
        for number in range(int(state.step) + 1, self.steps + 1):
            waiting = time.perf_counter()
            batch, lists = self.program.put(*next(self.batches))
            self.meter.waited(time.perf_counter() - waiting)
            place = self.batches.get_state()
            state, metrics = step_fn(state, batch, lists)
            if pending:
                self._read(number - 1, pending, tracker, progress)
            pending = metrics
            stopping = stop.is_set() or stop_agreed(number)
            save = number % c.checkpoint_every == 0 or number == self.steps or stopping
            evaluate = c.eval_every and number % c.eval_every == 0 and number < self.steps
            if save or evaluate:
                self._read(number, pending, tracker, progress)
                pending = None
            if evaluate:  # before saving: a run killed between the two does it again
                tracker.log({"step": number, **self.evaluator(state.params, "validation")})
                self.meter.restart()
            if save:
                meta = {"totals": dataclasses.asdict(self.totals), "batches": place}
                self.checkpoints.save(number, state, meta)
            if stopping and number < self.steps:
                self.checkpoints.wait()
                self.say(f"stopped by SIGTERM at step {number}; the same command goes on from it")
                raise Preempted(PREEMPTED)
        return state

    def _read(self, number: int, metrics: Any, tracker: Tracker, progress: Progress) -> None:
        values = {k: float(v) for k, v in jax.device_get(metrics).items()}
        self.meter.add(values)
        if values["bad_in_row"] >= self.config.train.max_bad_steps:
            raise TrainingDiverged(
                f"step {number}: {int(values['bad_in_row'])} steps in a row had a non-finite loss "
                "or gradient (none was applied); lower optim.dense_lr or optim.table_lr, or "
                "raise optim.warmup"
            )
        if number % self.config.train.log_every == 0 or number == self.steps:
            row = {"step": number, **self.meter.row(), **self.learning_rates(number)}
            tracker.log(row)
            progress.show(number, f"loss {row['train/loss']:.4f}  {row['tokens_per_s']:,.0f} tok/s")

    def _finish(
        self, state: TrainState, tracker: Tracker, xla_flops: float | None
    ) -> dict[str, Any]:
        """Evaluates the final state and writes summary.json."""
        began = time.perf_counter()
        evaluation: dict[str, Any] = {}
        beats_oracle = False
        for split in self.config.eval.splits:
            if self.records.manifest.splits[split].impressions:
                evaluation |= self.evaluator(state.params, split)
                beats_oracle |= evaluation.get("beats_oracle", False)
        if "beats_oracle" in evaluation:
            evaluation["beats_oracle"] = beats_oracle
        tracker.log({"step": self.steps, **evaluation})
        self.checkpoints.wait()
        devices = jax.devices()
        summary = {
            "run": self.out.name,
            "status": "leaks" if beats_oracle else "finished",
            "steps": self.steps,
            "tokens": 2 * self.totals.impressions,
            "impressions": self.totals.impressions,
            "targets": self.totals.targets,
            "start_seconds": self.start_seconds,
            "seconds": self.totals.seconds,
            "eval_seconds": time.perf_counter() - began,
            "device": devices[0].device_kind,
            "devices": self.mesh.size,
            "packing": self.plan.packing,
            "bad_steps": int(state.bad_total),
            **compute_axes(self.config.model, self.parameters["dense"], self.totals.work),
            "flops_xla": xla_flops * self.steps if xla_flops else None,
            **{f"params_{k}": self.parameters[k] for k in ("dense", "tables")},
            **{f"params/{k}": v for k, v in self.parameters.items()},
            **{f"config/{k}": v for k, v in flatten(self.config).items()},
            **evaluation,
        }
        if is_first():
            save_summary(self.out, summary)
        tracker.summarize(summary)
        if beats_oracle:
            self.say(
                "the model has a lower cross-entropy than the oracle: that is a leak, no success"
            )
        return summary
