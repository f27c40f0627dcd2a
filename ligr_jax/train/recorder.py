"""The records of one run: rows of metrics, checkpoints and, at its end, a summary.

A run has the same records whether it trains alone or as one of several vmapped runs.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from ligr_jax.config import Config, flatten, training_leak
from ligr_jax.cost.flops import compute_axes, parameter_counts
from ligr_jax.errors import LigrError
from ligr_jax.parallel.processes import is_first
from ligr_jax.runs.columns import LARGEST_INPUT_WAIT, config_column
from ligr_jax.runs.directory import save_summary
from ligr_jax.runs.files import RunFiles
from ligr_jax.runs.tracker import tracking
from ligr_jax.tables.layout import Layout
from ligr_jax.train.checkpoint import Checkpoints
from ligr_jax.train.meter import Meter, Totals
from ligr_jax.train.schedules import rate_schedule
from ligr_jax.train.state import TrainState

_log = logging.getLogger(__name__)

_ALERT_AFTER_S = 60.0  # the first batches of a run wait for the loader to start


class TrainingDiverged(LigrError, RuntimeError):
    """Too many steps in a row had a non-finite loss or gradient; none of them was applied."""


class RunRecorder:
    """Writes the records of one run into its directory.

    Attributes:
        directory: run directory.
        checkpoints: checkpoints of the run.
        totals: work and time so far, which checkpoints save.
        evaluation_due: whether a signal interrupted the evaluation of the newest state.
        start_seconds: time for restoring and compiling, before the first step.
        meter: counts of the steps, while the records are open.
    """

    meter: Meter

    def __init__(self, config: Config, directory: Path, steps: int, layout: Layout) -> None:
        """
        Args:
            config: configuration of the run.
            directory: run directory.
            steps: number of steps of the whole run.
            layout: layout of the tables in its states.
        """
        self.config = config
        self.directory = directory
        self.steps = steps
        self.checkpoints = Checkpoints(
            RunFiles(directory).checkpoints, config.train.keep, layout, self._publish_rows
        )
        self.totals = Totals()
        self.evaluation_due = False
        self.start_seconds = 0.0
        self._has_waited = False

    def _publish_rows(self) -> None:
        self._tracker.publish()

    def restore(self, abstract_state: TrainState) -> tuple[TrainState, dict[str, int]] | None:
        """Restore the newest intact checkpoint and its totals.

        Args:
            abstract_state: shapes, types and shardings of the state.

        Returns:
            The state and the state of the batch iterator; None if there is no checkpoint.
        """
        restored = self.checkpoints.restore(abstract_state)
        if restored is None:
            return None
        state, meta = restored
        self.totals = Totals(**meta["totals"])
        self.evaluation_due = meta.get("evaluation_due", False)
        return state, meta["batches"]

    @contextlib.contextmanager
    def open(self, first_step: int, params: Any, devices: int, runs: int = 1) -> Iterator[None]:
        """Open the records to continue after a step.

        Args:
            first_step: number of steps that are done.
            params: parameters, or their shapes.
            devices: number of devices that train.
            runs: number of runs that these devices train together, including this one.
        """
        self.parameters = parameter_counts(self.config.model, params)
        self.devices = devices
        self.runs = runs
        config = self.config
        self.meter = Meter(
            model=config.model,
            positions=config.optim.batch * (config.data.seq_len // 2),
            dense=self.parameters["dense"],
            devices=devices,
            totals=self.totals,
            runs=runs,
        )
        with tracking(self.directory, self.config, first_step) as self._tracker:
            for message in self.checkpoints.damaged:
                self._tracker.alert("Checkpoint damaged", message)
            yield
        self.checkpoints.close()

    def learning_rates(self, step: int) -> dict[str, float]:
        """Return the learning rates of a step, counted from 1."""
        optim = self.config.optim
        peak_rates = {"lr/dense": optim.dense_lr, "lr/tables": optim.table_lr}
        return {
            name: float(rate_schedule(optim, peak, self.steps)(step - 1))
            for name, peak in peak_rates.items()
        }

    def add_step(self, number: int, values: dict[str, float]) -> dict[str, Any] | None:
        """Add the metrics of a step.

        Args:
            number: number of the step, from 1.
            values: metrics by name.

        Returns:
            The row that was logged; None between two logged rows.

        Raises:
            TrainingDiverged: `train.max_bad_steps` steps in a row were not finite.
        """
        self.meter.add(values)
        if values["bad_in_row"] >= self.config.train.max_bad_steps:
            error = (
                f"step {number}: {int(values['bad_in_row'])} steps in a row had a non-finite loss "
                "or gradient (none was applied); lower optim.dense_lr or optim.table_lr, or "
                "raise optim.warmup"
            )
            self._log_row(number)
            self._tracker.fail(error, "diverged")
            raise TrainingDiverged(error)
        if number % self.config.train.log_every and number != self.steps:
            return None
        return self._log_row(number)

    def _log_row(self, number: int) -> dict[str, Any]:
        """Log the metrics of the steps since the last row; alert if training waits for data."""
        row = {"step": number, **self.meter.row(), **self.learning_rates(number)}
        self._tracker.log(row)
        waited = self.totals.wait_seconds / max(self.totals.seconds, _ALERT_AFTER_S)
        if waited > LARGEST_INPUT_WAIT and not self._has_waited:
            self._has_waited = True
            self._tracker.alert(
                "Training waits for data",
                f"{waited:.0%} of the time until step {number}; raise data.workers, or use a host "
                "with more cores per device",
            )
        return row

    def add_evaluation(self, number: int, metrics: Mapping[str, Any]) -> None:
        """Log the metrics of an evaluation and the compute so far; its time is not training."""
        self._tracker.log({"step": number, **metrics, **self.meter.compute()})
        self.evaluation_due = False
        self.meter.restart()

    def save(self, number: int, state: TrainState, batches: Mapping[str, int]) -> None:
        """Save a checkpoint in the background.

        Args:
            number: number of steps that are done.
            state: state after these steps.
            batches: state of the batch iterator.
        """
        meta: dict[str, Any] = {"totals": dataclasses.asdict(self.totals), "batches": batches}
        if self.evaluation_due:
            meta["evaluation_due"] = True
        self.checkpoints.save(number, state, meta)

    def finish(
        self,
        evaluations: Sequence[Mapping[str, Any]],
        eval_seconds: float,
        packing: float,
        bad_steps: int,
        flops_xla: float | None,
    ) -> dict[str, Any]:
        """Write the final evaluation and the summary.

        Runs that train together have equal shares of the wall time. A share times `devices` is in
        device-seconds, which add up over the runs.

        Args:
            evaluations: metrics of each split.
            eval_seconds: time of these evaluations.
            packing: share of positions that are not padding.
            bad_steps: number of skipped steps.
            flops_xla: XLA's count of the FLOPs of a step, if there is one.

        Returns:
            The summary.
        """
        beats_oracle = any(e.get("beats_oracle", False) for e in evaluations)
        leaks = beats_oracle or bool(training_leak(self.config))
        evaluation: dict[str, Any] = {k: v for e in evaluations for k, v in e.items()}
        if "beats_oracle" in evaluation:
            evaluation["beats_oracle"] = beats_oracle
        self._tracker.log_once({"step": self.steps, **evaluation, **self.meter.compute()})
        self.checkpoints.wait()
        self._tracker.publish()  # all rows are in the store before the file that finishes the run
        summary = {
            "run": self.directory.name,
            "status": "leaks" if leaks else "finished",
            "leaks": leaks,
            "steps": self.steps,
            "tokens": 2 * self.totals.impressions,
            "impressions": self.totals.impressions,
            "targets": self.totals.targets,
            "start_seconds": self.start_seconds / self.runs,
            "seconds": self.totals.seconds,
            "input_wait": self.totals.wait_seconds / max(1e-9, self.totals.seconds),
            "input_wait_seconds": self.totals.wait_seconds,
            "eval_seconds": eval_seconds / self.runs,
            "save_seconds": self.checkpoints.save_seconds,
            "together": self.runs,
            "device": jax.devices()[0].device_kind,
            "devices": self.devices,
            "device_seconds": self.totals.seconds * self.devices,
            "packing": packing,
            "bad_steps": bad_steps,
            **compute_axes(self.config.model, self.parameters["dense"], self.totals.work),
            "flops_xla": flops_xla * self.steps if flops_xla else None,
            **{f"params_{k}": self.parameters[k] for k in ("dense", "tables")},
            **{f"params/{k}": v for k, v in self.parameters.items()},
            **{config_column(k): v for k, v in flatten(self.config).items()},
            **evaluation,
        }
        if is_first():
            save_summary(self.directory, summary)
        self._tracker.summarize(summary)
        if leak := training_leak(self.config):
            _log.warning(f"{leak}; reports leave the run out of laws and comparisons")
        if beats_oracle:
            leak = "the model has a lower cross-entropy than the oracle: labels leak into its input"
            _log.warning(leak)
            self._tracker.alert("Oracle beaten", leak)
        return summary
