"""What a run has done and how fast: totals since its start, and the steps since the last row."""

import dataclasses
import time
from typing import Any

import numpy as np

from ligr_jax.config import Config
from ligr_jax.cost.devices import peak_flops
from ligr_jax.cost.flops import compute_axes
from ligr_jax.nn.work import Work

_COUNTED = ("impressions", "targets", "history_pairs", "set_pairs")
_LATEST = ("bad_in_row", "bad_total")


@dataclasses.dataclass
class Totals:
    """What a run has done so far; saved in checkpoints, so a resumed run goes on counting."""

    impressions: float = 0.0
    targets: float = 0.0
    history_pairs: float = 0.0
    set_pairs: float = 0.0
    seconds: float = 0.0
    wait_seconds: float = 0.0

    @property
    def work(self) -> Work:
        return Work(self.impressions, self.history_pairs, self.set_pairs)


class Meter:
    """Adds up steps, and makes a row of those since the last one.

    Of several runs trained together, each is charged an equal share of the seconds.
    """

    def __init__(
        self, config: Config, dense: int, devices: int, totals: Totals, together: int = 1
    ) -> None:
        self.totals, self._share = totals, 1 / together
        self._config, self._dense = config, dense
        self._peak = peak_flops(config.model.dtype) * devices
        self.restart()

    def restart(self) -> None:
        """Starts a new row now: what happened meanwhile was no training."""
        self._began, self._wait = time.perf_counter(), 0.0
        self._steps: list[dict[str, float]] = []
        self._before = dataclasses.replace(self.totals)

    def waited(self, seconds: float) -> None:
        """The step's time spent waiting for its batch."""
        self._wait += self._share * seconds

    def add(self, values: dict[str, float]) -> None:
        """The metrics of one finished step."""
        for name in _COUNTED:
            setattr(self.totals, name, getattr(self.totals, name) + values[name])
        elapsed = self._share * (time.perf_counter() - self._began)
        self.totals.seconds = self._before.seconds + elapsed
        self.totals.wait_seconds = self._before.wait_seconds + self._wait
        self._steps.append(values)

    def row(self) -> dict[str, Any]:
        """Means of the losses over the steps since the last row, speed, and the compute axes."""
        c, totals, before = self._config, self.totals, self._before
        now = compute_axes(c.model, self._dense, totals.work)
        then = compute_axes(c.model, self._dense, before.work)
        seconds = max(1e-9, totals.seconds - before.seconds)
        impressions = totals.impressions - before.impressions
        positions = len(self._steps) * c.optim.batch * (c.data.seq_len // 2)
        row = {
            **self._losses(),
            **now,
            "tokens": 2 * totals.impressions,
            "tokens_per_s": 2 * impressions / seconds,
            "mfu": (now["flops_model"] - then["flops_model"]) / seconds / self._peak,
            "packing": impressions / positions,
            "input_wait": self._wait / seconds,
            "time_s": totals.seconds,
        }
        self.restart()
        return row

    def _losses(self) -> dict[str, float]:
        names = [k for k in self._steps[-1] if k not in _COUNTED]
        means = {}
        for name in names:
            values = np.array([step[name] for step in self._steps])
            finite = values[np.isfinite(values)]  # a bad step was not applied: it is only counted
            means[f"train/{name}"] = float(finite.mean()) if len(finite) else float("nan")
        return means | {f"train/{k}": self._steps[-1][k] for k in _LATEST}
