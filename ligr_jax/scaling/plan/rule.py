"""Growth of each dimension of the best runs with compute, with intervals. NumPy only.

Each dimension gets one of two rules:

    iso-FLOP   if two budgets or more have three values or more of the dimension: a parabola in
               its logarithm per budget, and a power law through the minima
    ladder     else: a power law through the frontier (`Frontier`)

A dimension that is equal in all runs is kept.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ligr_jax.data.schema import BadInput
from ligr_jax.runs.columns import config_column
from ligr_jax.runs.run_table import RunTable
from ligr_jax.scaling.fit import CONFIDENCE, IsoFlop, fit_isoflop
from ligr_jax.scaling.fit.bootstrap import scale_levels
from ligr_jax.scaling.fit.intervals import band
from ligr_jax.scaling.plan.frontier import Array, Frontier

Interval = tuple[float, float, float]  # value, low, high; low and high are NaN if unknown

DIMENSIONS = (  # configuration names; a foreign table may use the last part, e.g. "depth"
    "data.seq_len",
    "model.depth",
    "model.set_depth",
    "model.width",
    "model.heads",
    "model.table_width",
    "optim.batch",
    "optim.dense_lr",
    "optim.table_lr",
    "params_dense",
    "tokens",
)
DERIVED = ("params_dense", "tokens")  # results of a shape and a budget, not settings


@dataclass(frozen=True)
class DimensionRule:
    """Growth of one dimension.

    Attributes:
        how: which rule was used.
        exponent: exponent of the power law in compute; 0 for a fixed dimension.
        runs: names of the runs it was fitted to.
        at: function from compute to the value with its interval.
    """

    how: Literal["fixed", "ladder", "iso-FLOP"]
    exponent: float
    runs: tuple[str, ...]
    at: Callable[[float], Interval]


@dataclass(frozen=True)
class GrowthRule:
    """Growth of all dimensions with compute.

    Attributes:
        axis: column of compute.
        dimensions: rule of each dimension that the runs have.
        frontier: names of the runs on the frontier.
        compute: smallest and largest compute of all runs.
        warnings: what the runs do not determine.
    """

    axis: str
    dimensions: dict[str, DimensionRule]
    frontier: tuple[str, ...]
    compute: tuple[float, float]
    warnings: tuple[str, ...]

    @property
    def varied(self) -> frozenset[str]:
        """Dimensions that are not fixed."""
        return frozenset(n for n, growth in self.dimensions.items() if growth.how != "fixed")

    def at(self, compute: float) -> dict[str, Interval]:
        """Return every dimension at `compute`, not rounded."""
        return {name: growth.at(compute) for name, growth in self.dimensions.items()}


def growth_rule(
    table: RunTable,
    metric: str,
    axis: str,
    *,
    lower_is_better: bool = True,
    resamples: int = 1000,
    seed: int = 0,
) -> GrowthRule:
    """Fit the growth of every dimension of a table of finished runs on one compute axis.

    Intervals of the ladder rule are bootstrap percentiles over runs. Every resample has its own
    frontier, so the interval includes the choice of the best shapes. Percentiles are widened to
    Student's t because frontiers are short. Intervals of the iso-FLOP rule: see `fit_isoflop`.

    Args:
        table: finished runs.
        metric: column of the metric.
        axis: column of compute.
        lower_is_better: direction of the metric.
        resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.

    Returns:
        The rule.

    Raises:
        BadInput: there are fewer than two budgets, no column of a dimension, or no shape that is
            better than the smallest.
    """
    compute = table.numbers(axis)
    loss = table.numbers(metric) * (1 if lower_is_better else -1)
    budget = scale_levels(compute)
    if budget.max() == 0:
        raise BadInput(
            f"all {len(table)} runs have one compute budget ({compute[0]:.3g} on {axis}): growth "
            "cannot be estimated; add runs of other budgets"
        )
    values_of = {
        name: values for name in DIMENSIONS if (values := dimension(table, name)) is not None
    }
    if not values_of:
        raise BadInput(
            f"the runs have no column of a dimension, such as {', '.join(DIMENSIONS[:4])}"
        )

    # The frontier compares shapes, not runs: seeds of one shape at one budget share a label.
    labels = np.array(_labels(table, values_of, budget))
    names = np.array(table.names, object)
    frontier = Frontier(labels.tolist(), compute, loss)
    frontier_runs = tuple(names[frontier.runs])
    if len(frontier.best) < 2:
        raise BadInput(
            f"no run is better than the smallest, {frontier_runs[0]}: {metric} does not improve "
            f"with {axis}; check the training before scaling it"
        )

    # The same resamples are used for all dimensions.
    counts = np.random.default_rng(seed).multinomial(
        len(loss), np.full(len(loss), 1 / len(loss)), size=resamples
    )
    warnings: list[str] = []

    def fit_dimension(name: str, values: Array) -> DimensionRule:
        """Return the rule of one dimension, preferring the iso-FLOP rule."""
        if np.ptp(values) == 0:
            return _fixed(values[0])
        if values.min() <= 0:
            # A power law cannot reach 0, e.g. a set-wise depth of 0.
            warnings.append(f"{name} is 0 in some runs: its value in the best run is kept")
            return _fixed(values[frontier.runs[-1]])
        kept = _several_shapes(budget, values)
        if kept.any() and name not in DERIVED:
            runs, groups = names[kept].tolist(), labels[kept].tolist()
            options: dict[str, Any] = {"resamples": resamples, "seed": seed}
            try:
                law = fit_isoflop(
                    compute[kept], values[kept], loss[kept], runs=runs, groups=groups, **options
                )
                warnings.extend(f"{name}: {w}" for w in law.warnings)
                return _best_of_budgets(law)
            except BadInput as e:
                warnings.append(f"{name}: {e}; the growth along the frontier is used instead")
        value, draws = frontier.power_law(values, counts)
        return _ladder(value, draws, len(frontier.best), frontier_runs)

    dimensions = {name: fit_dimension(name, values) for name, values in values_of.items()}
    return GrowthRule(
        axis=axis,
        dimensions=dimensions,
        frontier=frontier_runs,
        compute=(float(compute.min()), float(compute.max())),
        warnings=tuple(warnings),
    )


def dimension(table: RunTable, name: str) -> Array | None:
    """Return the values of a dimension; None if it has no numeric column without nulls.

    The column may be called e.g. `config/model.depth`, `model.depth` or `depth`.
    """
    for name_in_table in (config_column(name), name, name.rpartition(".")[2]):
        if (
            table.has(name_in_table)
            and table.is_complete(name_in_table)
            and table.is_numeric(name_in_table)
        ):
            return table.numbers(name_in_table)
    return None


def _ladder(value: Array, draws: Array, points: int, runs: tuple[str, ...]) -> DimensionRule:
    """Return the rule of a power law through the frontier.

    Args:
        value: intercept and slope [2] of log value against log compute.
        draws: intercept and slope of each resample, [R, 2].
        points: number of shapes on the frontier.
        runs: names of the runs on the frontier.
    """
    # Percentiles are widened to Student's t, because `points` are few.
    freedom = points - 2
    tail = 0.5 * (1 + CONFIDENCE)
    widening = (
        np.sqrt(points / freedom) * stats.t.ppf(tail, freedom) / stats.norm.ppf(tail)
        if freedom
        else 1.0
    )

    def at(compute: float) -> Interval:
        basis = np.array([1.0, np.log(compute)])
        middle = float(value @ basis)
        if not freedom or not len(draws):
            return float(np.exp(middle)), np.nan, np.nan
        widened = middle + widening * (draws @ basis - middle)
        low, high = np.exp(band(np.array(middle), widened, CONFIDENCE))
        return float(np.exp(middle)), float(low), float(high)

    return DimensionRule(how="ladder", exponent=float(value[1]), runs=runs, at=at)


def _several_shapes(budget: NDArray[np.int64], values: Array) -> NDArray[np.bool_]:
    """Return the runs, bool [runs], of budgets with three values or more; none for one budget."""
    enough = [k for k in range(budget.max() + 1) if len(np.unique(values[budget == k])) >= 3]
    return np.isin(budget, enough) & (len(enough) >= 2)


def _best_of_budgets(law: IsoFlop) -> DimensionRule:
    """Return the rule of an iso-FLOP law."""

    def at(compute: float) -> Interval:
        value, low, high = (float(v) for v in law.predict(compute))
        return value, low, high

    return DimensionRule(how="iso-FLOP", exponent=law.params["exponent"], runs=law.runs, at=at)


def _fixed(value: float) -> DimensionRule:
    """Return the rule of a dimension that does not grow."""
    value = float(value)

    def at(_: float) -> Interval:
        return value, value, value

    return DimensionRule(how="fixed", exponent=0.0, runs=(), at=at)


def _labels(table: RunTable, values_of: dict[str, Array], budget: NDArray[np.int64]) -> list[str]:
    """Return a label per run, equal for the seeds of one shape at one budget."""
    design = [v.tolist() for name, v in values_of.items() if name not in DERIVED]
    return [json.dumps(row) for row in zip(table.shapes(), budget.tolist(), *design)]
