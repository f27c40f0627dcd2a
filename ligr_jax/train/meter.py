"""Counters of a run: totals since its start, and speed since the last row of metrics."""

import dataclasses
import time
from typing import Any

import numpy as np

from ligr_jax.config import ModelConfig
from ligr_jax.cost.devices import peak_flops
from ligr_jax.cost.flops import compute_axes, train_flops
from ligr_jax.nn.work import Work
from ligr_jax.runs.columns import metric_name

_WORK = tuple(field.name for field in dataclasses.fields(Work))
_COUNTED = ("targets", *_WORK)
_LATEST = ("bad_in_row", "bad_total")


@dataclasses.dataclass
class Totals:
    """Work and time of a run so far. Checkpoints save it, so a resumed run continues the counts."""

    impressions: float = 0.0
    targets: float = 0.0
    history_pairs: float = 0.0
    set_pairs: float = 0.0
    stream_pairs: float = 0.0
    range_pairs: float = 0.0
    seconds: float = 0.0
    wait_seconds: float = 0.0

    @property
    def work(self) -> Work:
        return Work(**{name: getattr(self, name) for name in _WORK})


class Meter:
    """Adds up the metrics of steps, and summarizes them in rows.

    If several runs train together, each of them has an equal share of the time.
    """

    def __init__(
        self,
        model: ModelConfig,
        positions: int,
        dense: int,
        devices: int,
        totals: Totals,
        runs: int = 1,
    ) -> None:
        """
        Args:
            model: the model, for its FLOPs and the type of its activations.
            positions: impressions that the batch of a step has room for.
            dense: number of dense parameters.
            devices: number of devices that train.
            totals: totals before the first step; they are updated.
            runs: number of runs that train together.
        """
        self.totals = totals
        self._share = 1 / runs
        self._model = model
        self._positions = positions
        self._dense = dense
        self._devices = devices
        self._peak = peak_flops(model.dtype) * devices
        self.restart()

    def restart(self) -> None:
        """Begin a new row now; the time since the last row does not count as training."""
        self._began, self._wait = time.perf_counter(), 0.0
        self._steps: list[dict[str, float]] = []
        self._before = dataclasses.replace(self.totals)

    def waited(self, seconds: float) -> None:
        """Add the time (seconds) that a step waited for its batch."""
        self._wait += self._share * seconds

    def add(self, values: dict[str, float]) -> None:
        """Add the metrics of a step."""
        for name in _COUNTED:
            setattr(self.totals, name, getattr(self.totals, name) + values.get(name, 0.0))
        elapsed = self._share * (time.perf_counter() - self._began)
        self.totals.seconds = self._before.seconds + elapsed
        self.totals.wait_seconds = self._before.wait_seconds + self._wait
        self._steps.append(values)

    def row(self) -> dict[str, Any]:
        """Return mean losses and speed since the last row, and the compute axes so far."""
        totals, before = self.totals, self._before
        flops = train_flops(self._model, totals.work) - train_flops(self._model, before.work)
        seconds = max(1e-9, totals.seconds - before.seconds)
        impressions = totals.impressions - before.impressions
        throughput = {
            "tokens_per_s": 2 * impressions / seconds,
            "mfu": flops / seconds / self._peak,
            "packing": impressions / (len(self._steps) * self._positions),
            "input_wait": self._wait / seconds,
            "input_wait_seconds": self._wait,
        }
        row = {
            **self._losses(),
            **{metric_name(name): value for name, value in throughput.items()},
            **self.compute(),
        }
        self.restart()
        return row

    def compute(self) -> dict[str, float]:
        """Return the compute of all steps so far, on every axis."""
        axes = {
            **compute_axes(self._model, self._dense, self.totals.work),
            "tokens": 2 * self.totals.impressions,
            "seconds": self.totals.seconds,
            "device_seconds": self.totals.seconds * self._devices,
        }
        return {metric_name(name): value for name, value in axes.items()}

    def _losses(self) -> dict[str, float]:
        names = [k for k in self._steps[-1] if k not in _COUNTED]
        means = {}
        for name in names:
            values = np.array([step[name] for step in self._steps])
            finite = values[np.isfinite(values)]  # skipped steps are only counted
            means[f"train/{name}"] = float(finite.mean()) if len(finite) else float("nan")
        return means | {f"train/{k}": self._steps[-1][k] for k in _LATEST}
