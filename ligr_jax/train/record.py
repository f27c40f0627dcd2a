"""What one run writes while it trains: rows, checkpoints and, at its end, a summary.

A run keeps the same records whether it trains alone or together with others.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from ligr_jax.config import Config, flatten
from ligr_jax.cost.flops import compute_axes, parameter_counts
from ligr_jax.errors import LigrError
from ligr_jax.parallel.processes import is_first
from ligr_jax.runs.directory import save_summary
from ligr_jax.runs.files import RunFiles
from ligr_jax.runs.tracker import tracking
from ligr_jax.tables.layout import Layout
from ligr_jax.train.checkpoint import Checkpoints
from ligr_jax.train.meter import Meter, Totals
from ligr_jax.train.schedules import rate_schedule
from ligr_jax.train.state import TrainState

_log = logging.getLogger(__name__)


class TrainingDiverged(LigrError, RuntimeError):
    """Too many non-finite steps in a row; none of them was applied."""


class Record:
    """The records of one run, in its directory `out`."""

    def __init__(self, config: Config, out: Path, steps: int, layout: Layout) -> None:
        """
        Args:
            steps: of the whole run.
            layout: of the tables of its states.
        """
        self.config, self.out, self.steps = config, out, steps
        self.checkpoints = Checkpoints(RunFiles(out).checkpoints, config.train.keep, layout)
        self.totals = Totals()
        self.evaluation_due = False  # of the newest state: a signal interrupted it
        self.start_seconds = 0.0  # restoring and compiling, before the first step

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, int]] | None:
        """The newest intact state and the place of its batches, its totals taken over."""
        restored = self.checkpoints.restore(like)
        if restored is None:
            return None
        state, meta = restored
        self.totals = Totals(**meta["totals"])
        self.evaluation_due = meta.get("evaluation_due", False)
        return state, meta["batches"]

    @contextlib.contextmanager
    def open(self, first: int, params: Any, devices: int, together: int = 1) -> Iterator[None]:
        """Goes on writing after step `first`.

        Args:
            params: arrays or shapes.
            devices: number of devices that train.
            together: number of runs that these devices train, including this one.
        """
        self.parameters = parameter_counts(self.config.model, params)
        self.devices, self.together = devices, together
        dense = self.parameters["dense"]
        self.meter = Meter(self.config, dense, devices, self.totals, together)
        with tracking(self.out, self.config, first) as self._tracker:
            yield
        self.checkpoints.close()

    def learning_rates(self, step: int) -> dict[str, float]:
        """The rates that step `step` (counted from 1) used."""
        c = self.config.optim
        peaks = {"lr/dense": c.dense_lr, "lr/tables": c.table_lr}
        return {k: float(rate_schedule(c, v, self.steps)(step - 1)) for k, v in peaks.items()}

    def read(self, number: int, values: dict[str, float]) -> dict[str, Any] | None:
        """Takes in the metrics of step `number`; returns the row, where it is time for one.

        Raises:
            TrainingDiverged: `train.max_bad_steps` non-finite steps in a row.
        """
        self.meter.add(values)
        if values["bad_in_row"] >= self.config.train.max_bad_steps:
            raise TrainingDiverged(
                f"step {number}: {int(values['bad_in_row'])} steps in a row had a non-finite loss "
                "or gradient (none was applied); lower optim.dense_lr or optim.table_lr, or "
                "raise optim.warmup"
            )
        if number % self.config.train.log_every and number != self.steps:
            return None
        row = {"step": number, **self.meter.row(), **self.learning_rates(number)}
        self._tracker.log(row)
        return row

    def evaluated(self, number: int, numbers: Mapping[str, Any]) -> None:
        """Writes an evaluation's numbers; the time it took was no training."""
        self._tracker.log({"step": number, **numbers})
        self.evaluation_due = False
        self.meter.restart()

    def save(self, number: int, state: TrainState, place: Mapping[str, int]) -> None:
        """Saves in the background. place: of the next batch."""
        meta: dict[str, Any] = {"totals": dataclasses.asdict(self.totals), "batches": place}
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
        """Writes the final evaluation and summary.json, and returns the summary.

        Of runs trained together, seconds are equal shares of the wall time: times `devices` they
        are device-seconds, which add up over the runs.

        Args:
            evaluations: of the splits.
            flops_xla: of a step by XLA's count, where it gives one.
        """
        leaks = any(e.get("beats_oracle", False) for e in evaluations)
        evaluation: dict[str, Any] = {k: v for e in evaluations for k, v in e.items()}
        if "beats_oracle" in evaluation:
            evaluation["beats_oracle"] = leaks
        self._tracker.log_once({"step": self.steps, **evaluation})
        self.checkpoints.wait()
        summary = {
            "run": self.out.name,
            "status": "leaks" if leaks else "finished",
            "steps": self.steps,
            "tokens": 2 * self.totals.impressions,
            "impressions": self.totals.impressions,
            "targets": self.totals.targets,
            "start_seconds": self.start_seconds / self.together,
            "seconds": self.totals.seconds,
            "eval_seconds": eval_seconds / self.together,
            "together": self.together,
            "device": jax.devices()[0].device_kind,
            "devices": self.devices,
            "packing": packing,
            "bad_steps": bad_steps,
            **compute_axes(self.config.model, self.parameters["dense"], self.totals.work),
            "flops_xla": flops_xla * self.steps if flops_xla else None,
            **{f"params_{k}": self.parameters[k] for k in ("dense", "tables")},
            **{f"params/{k}": v for k, v in self.parameters.items()},
            **{f"config/{k}": v for k, v in flatten(self.config).items()},
            **evaluation,
        }
        if is_first():
            save_summary(self.out, summary)
        self._tracker.summarize(summary)
        if leaks:
            _log.warning(
                "the model has a lower cross-entropy than the oracle: that is a leak, no success"
            )
        return summary
