"""The best shapes of a table of runs, and power laws through them; NumPy only."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ligr_jax.scaling.fit import budgets

Array = NDArray[np.float64]


class Frontier:
    """Of each compute budget its best shape, where that beats every smaller budget.

    A shape counts by the mean over its seeds: the luckiest of many seeds is no better a shape.

    best: numbers of the frontier's shapes; runs: of their runs; both cheapest first.
    """

    def __init__(self, labels: Sequence[str], compute: Array, loss: Array) -> None:
        """labels: of each run, equal for the seeds of one shape. loss: lower is better."""
        self.loss = loss
        shape = np.unique(labels, return_inverse=True)[1]
        member = np.eye(shape.max() + 1)[shape]
        log_compute = self._mean(np.log(compute), member)
        order = np.argsort(log_compute)
        self._member, self._x = member[:, order], log_compute[order]  # [runs, shapes], [shapes]
        self._level = budgets(np.exp(self._x))
        self.best = np.flatnonzero(self._on_it(np.ones((1, len(loss))))[0])
        self.runs = np.concatenate([np.flatnonzero(self._member[:, s]) for s in self.best])

    def power_law(self, values: Array, counts: NDArray[Any]) -> tuple[Array, Array]:
        """Intercept and slope [2] of log value against log compute by least squares.

        Args:
            values: of each run.
            counts: [resamples, runs], how often each run was drawn.

        Returns:
            the estimate, and those of the resamples [.., 2], each through a frontier of its own;
            resamples whose frontier is one shape are left out.
        """
        y = self._mean(np.log(values), self._member)
        value = _line(self._on_it(np.ones((1, len(values)))), self._x, y)[0]
        draws = _line(self._on_it(counts), self._x, y)
        return value, draws[np.isfinite(draws).all(1)]

    def _on_it(self, counts: NDArray[Any]) -> NDArray[np.bool_]:
        """bool [resamples, shapes]: what is on the frontier of each resample."""
        weight = counts @ self._member
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(weight > 0, (counts * self.loss) @ self._member / weight, np.inf)
        levels = range(self._level[-1] + 1)
        best = np.stack([mean[:, self._level == k].min(1) for k in levels], 1)
        before = np.minimum.accumulate(best, axis=1)[:, :-1]
        before = np.concatenate([np.full((len(mean), 1), np.inf), before], 1)
        return (mean == best[:, self._level]) & (mean < before[:, self._level])

    @staticmethod
    def _mean(values: Array, member: Array) -> Array:
        return (member.T @ values) / member.sum(0)


def _line(chosen: NDArray[np.bool_], x: Array, y: Array) -> Array:
    """Intercept and slope [.., 2] through the chosen points of each row; NaN where they are one."""
    w = chosen / chosen.sum(1, keepdims=True)
    mean_x, mean_y = w @ x, w @ y
    spread = w @ x**2 - mean_x**2
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = np.where(spread > 1e-9, (w @ (x * y) - mean_x * mean_y) / spread, np.nan)
    return np.stack([mean_y - slope * mean_x, slope], -1)
