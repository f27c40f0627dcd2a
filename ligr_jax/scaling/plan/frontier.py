"""Best shapes of a table of runs, and power laws through them. NumPy only."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ligr_jax.scaling.fit.bootstrap import scale_levels

Array = NDArray[np.float64]


class Frontier:
    """Best shape of each compute budget, if it is better than the best of every smaller budget.

    The loss of a shape is the mean over its seeds, because the best of many seeds is partly luck.

    Attributes:
        loss: loss of each run, [runs].
        best: indices of the shapes on the frontier, by compute.
        runs: indices of their runs, by compute.
    """

    def __init__(self, labels: Sequence[str], compute: Array, loss: Array) -> None:
        """Find the frontier.

        Args:
            labels: label of each run, equal for the seeds of one shape.
            compute: FLOPs of each run, [runs].
            loss: loss of each run, lower is better, [runs].
        """
        self.loss = loss
        shape = np.unique(labels, return_inverse=True)[1]
        member = np.eye(shape.max() + 1)[shape]
        log_compute = self._mean(np.log(compute), member)
        order = np.argsort(log_compute)
        self._member = member[:, order]  # [runs, shapes]: 1 if the run has the shape
        self._x = log_compute[order]  # [shapes]
        self._level = scale_levels(np.exp(self._x))  # [shapes]: index of the budget
        self.best = np.flatnonzero(self._on_frontier(np.ones((1, len(loss))))[0])
        self.runs = np.concatenate([np.flatnonzero(self._member[:, s]) for s in self.best])

    def power_law(self, values: Array, counts: NDArray[Any]) -> tuple[Array, Array]:
        """Fit log value against log compute along the frontier by least squares.

        Args:
            values: value of each run, [runs].
            counts: how often each run is in each resample, [resamples, runs].

        Returns:
            Intercept and slope [2], and those of the resamples [R, 2]. Every resample has its own
            frontier; resamples with a single shape on the frontier are left out.
        """
        y = self._mean(np.log(values), self._member)
        value = _line(self._on_frontier(np.ones((1, len(values)))), self._x, y)[0]
        draws = _line(self._on_frontier(counts), self._x, y)
        return value, draws[np.isfinite(draws).all(1)]

    def _on_frontier(self, counts: NDArray[Any]) -> NDArray[np.bool_]:
        """Return the shapes on the frontier of each resample, bool [resamples, shapes]."""
        weight = counts @ self._member
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(weight > 0, (counts * self.loss) @ self._member / weight, np.inf)
        levels = range(self._level[-1] + 1)
        best = np.stack([mean[:, self._level == k].min(1) for k in levels], 1)
        before = np.minimum.accumulate(best, axis=1)[:, :-1]
        before = np.concatenate([np.full((len(mean), 1), np.inf), before], 1)
        result: NDArray[np.bool_] = (mean == best[:, self._level]) & (mean < before[:, self._level])
        return result

    @staticmethod
    def _mean(values: Array, member: Array) -> Array:
        result: Array = (member.T @ values) / member.sum(0)
        return result


def _line(chosen: NDArray[np.bool_], x: Array, y: Array) -> Array:
    """Return intercept and slope [.., 2] through the chosen points of each row; NaN for one."""
    w = chosen / chosen.sum(1, keepdims=True)
    mean_x = w @ x
    mean_y = w @ y
    spread = w @ x**2 - mean_x**2
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = np.where(spread > 1e-9, (w @ (x * y) - mean_x * mean_y) / spread, np.nan)
    return np.stack([mean_y - slope * mean_x, slope], -1)
