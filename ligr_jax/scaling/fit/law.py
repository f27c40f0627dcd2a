"""Results of a fit: estimates with intervals, and predictions."""

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ligr_jax.scaling.fit.bootstrap import Array
from ligr_jax.scaling.fit.curves import CURVES
from ligr_jax.scaling.fit.intervals import band
from ligr_jax.strict_json import nan_to_null

VERSION = "1"  # version of the estimators: changes when equal runs would give different numbers


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Estimates of a law, their intervals, and the runs they come from.

    Attributes:
        form: name of the law.
        params: estimates by name.
        intervals: bootstrap interval of each estimate; empty without resamples.
        confidence: nominal coverage of the intervals.
        objective: sum of Huber terms of log residuals; for a line, the sum of squares.
        points: number of runs.
        units: number of units the bootstrap draws: runs, or groups of runs.
        resamples: number of resamples used.
        runs: names of the runs.
        warnings: what the runs do not determine.
        free: number of fitted parameters.
        version: version of the estimators.
        theta: estimate in the coordinates of the search, (p,).
        draws: estimates of the resamples in those coordinates, (R, p).
        residuals: residual of each run, (n,).
    """

    form: str
    params: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    confidence: float
    objective: float
    points: int
    units: int
    resamples: int
    runs: tuple[str, ...]
    warnings: tuple[str, ...]
    free: int
    version: str = VERSION
    theta: Array = field(repr=False, compare=False)
    draws: Array = field(repr=False, compare=False)
    residuals: Array = field(repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return all fields except arrays as plain JSON values; NaN and infinity become null."""
        result: dict[str, Any] = nan_to_null(
            {f.name: getattr(self, f.name) for f in fields(self) if f.repr}
        )
        return result

    def spread(self, run_noise: bool) -> Array:
        """Return possible residuals of a further run: (n,), or a single zero without run noise.

        They are the residuals of the fit times sqrt(n / (n - parameters)), because a fit makes the
        residuals of its own points smaller than those of a new point.
        """
        inflation = np.sqrt(self.points / max(1, self.points - self.free))
        return self.residuals * inflation if run_noise else np.zeros(1)


@dataclass(frozen=True, kw_only=True)
class Law(Fitted):
    """Law of a metric against compute.

    `params` has E, A, alpha (power); ceiling, A, alpha (saturating); or level (at the mean of
    log C) and slope per decade (line). These have gain_per_decade, the improvement over the last
    decade of compute of the runs, in metric units. A law of optima (loglog) has exponent and
    coefficient.

    Attributes:
        compute: smallest and largest compute of the runs, FLOPs.
        centre: mean of log compute.
    """

    compute: tuple[float, float]
    centre: float = field(repr=False)

    def predict(self, compute: ArrayLike, run_noise: bool = False) -> tuple[Array, Array, Array]:
        """Predict the metric at `compute` FLOPs.

        Args:
            compute: FLOPs, any shape.
            run_noise: False: the interval covers the law, i.e. the mean over runs. True: it covers
                the metric of one further run; every draw of the law is combined with every
                residual (see `spread`).

        Returns:
            Value, low and high, each of the shape of `compute`. Low and high are NaN without
            an interval (see `intervals.band`).
        """
        shape = np.shape(compute)
        x = np.log(np.asarray(compute, np.float64)).ravel() - self.centre
        curve = CURVES[self.form]
        value = curve.value(self.theta, x)
        draws = curve.value(self.draws, x)
        noisy = curve.off(draws[:, None], self.spread(run_noise)[:, None])
        low, high = band(value, noisy.reshape(-1, x.size), self.confidence)
        return value.reshape(shape), low.reshape(shape), high.reshape(shape)
