"""How each dimension of the best runs grows with compute, with intervals; NumPy only.

Two rules, chosen for each dimension by what the runs hold:

    iso-FLOP   several budgets hold three values or more of the dimension: a parabola in its
               logarithm per budget, a power law through the minima
    ladder     else: a power law through the frontier: the best shapes of budgets that beat all
               smaller ones

A dimension that never varies stays as it is.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit import CONFIDENCE, IsoFlop, budgets, fit_isoflop
from ligr_jax.scaling.plan.frontier import Array, Frontier
from ligr_jax.scaling.runs import column, shapes

Interval = tuple[float, float, float]  # value, low, high; the last two NaN where unknown

DIMENSIONS = (  # dotted names of the configuration; of other people's runs the last part will do
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
DERIVED = ("params_dense", "tokens")  # what a shape and its budget come to


@dataclass(frozen=True)
class Growth:
    """One dimension's rule. at: its value at a compute, with an interval. runs: fitted."""

    how: Literal["fixed", "ladder", "iso-FLOP"]
    exponent: float
    runs: tuple[str, ...]
    at: Callable[[float], Interval]


@dataclass(frozen=True)
class Rule:
    """How the best runs grow.

    dimensions: a rule for each the runs have. frontier: names of the runs it was fitted to.
    compute: smallest and largest of all runs. warnings: what the runs cannot tell.
    """

    axis: str
    dimensions: dict[str, Growth]
    frontier: tuple[str, ...]
    compute: tuple[float, float]
    warnings: tuple[str, ...]

    @property
    def varied(self) -> frozenset[str]:
        """Dimensions that grow."""
        return frozenset(n for n, growth in self.dimensions.items() if growth.how != "fixed")

    def at(self, compute: float) -> dict[str, Interval]:
        """Every dimension at a compute, not rounded."""
        return {name: growth.at(compute) for name, growth in self.dimensions.items()}


def growth_rule(
    table: pl.DataFrame,
    metric: str,
    axis: str,
    *,
    lower_is_better: bool = True,
    resamples: int = 1000,
    seed: int = 0,
) -> Rule:
    """The rule of a table of finished runs on one compute axis.

    Intervals are percentiles over resamples of the runs, each with a frontier of its own, widened
    to Student's because frontiers are short.

    Raises:
        BadInput: fewer than two budgets, or nothing better than the smallest shape.
    """
    compute, loss = column(table, axis), column(table, metric) * (1 if lower_is_better else -1)
    of = budgets(compute)
    if of.max() == 0:
        raise BadInput(
            f"all {len(table)} runs have one compute budget ({compute[0]:.3g} on {axis}): nothing "
            "says how to grow; add runs of other budgets"
        )
    found = {name: values for name in DIMENSIONS if (values := dimension(table, name)) is not None}
    if not found:
        raise BadInput(f"the runs tell no shape: columns such as {', '.join(DIMENSIONS[:4])}")
    labels, names = np.array(_labels(table, found, of)), table["run"].to_numpy()
    frontier = Frontier(labels.tolist(), compute, loss)
    on_it = tuple(names[frontier.runs])
    if len(frontier.best) < 2:
        raise BadInput(
            f"no run is better than the smallest, {on_it[0]}: {metric} does not improve with "
            f"{axis}; look at the training before scaling it"
        )
    drawn = np.random.default_rng(seed).multinomial(
        len(loss), np.full(len(loss), 1 / len(loss)), size=resamples
    )

    def grown(name: str, values: Array) -> Growth:
        if np.ptp(values) == 0:
            return _fixed(values[0])
        if values.min() <= 0:
            warnings.append(f"{name} is 0 in some runs: kept as in the best run")
            return _fixed(values[frontier.runs[-1]])
        kept = _several_shapes(of, values)
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
                warnings.append(f"{name}: {e}; until then it grows as along the frontier")
        return _ladder(*frontier.power_law(values, drawn), len(frontier.best), on_it)

    warnings: list[str] = []
    dimensions = {name: grown(name, values) for name, values in found.items()}
    span = (float(compute.min()), float(compute.max()))
    return Rule(axis, dimensions, on_it, span, tuple(warnings))


def dimension(table: pl.DataFrame, name: str) -> Array | None:
    """Values of a dimension, from `config/model.depth`, `model.depth` or `depth`, or None."""
    for each in (f"config/{name}", name, name.rpartition(".")[2]):
        if (
            each in table.columns
            and table[each].null_count() == 0
            and table[each].dtype.is_numeric()
        ):
            return column(table, each)
    return None


def _ladder(value: Array, draws: Array, points: int, runs: tuple[str, ...]) -> Growth:
    """Along the frontier, percentiles widened to Student's: `points` are few."""
    left, tail = points - 2, 0.5 * (1 + CONFIDENCE)
    wider = np.sqrt(points / left) * stats.t.ppf(tail, left) / stats.norm.ppf(tail) if left else 1.0

    def at(compute: float) -> Interval:
        basis = np.array([1.0, np.log(compute)])
        middle = float(value @ basis)
        if not left or not len(draws):
            return float(np.exp(middle)), np.nan, np.nan
        drawn = middle + wider * (draws @ basis - middle)
        low, high = np.exp(np.quantile(drawn, [1 - tail, tail]))
        return float(np.exp(middle)), float(low), float(high)

    return Growth("ladder", float(value[1]), runs, at)


def _several_shapes(of: NDArray[np.int64], values: Array) -> NDArray[np.bool_]:
    """bool [runs]: those of budgets with three values or more, if there are two such budgets."""
    enough = [k for k in range(of.max() + 1) if len(np.unique(values[of == k])) >= 3]
    return np.isin(of, enough) & (len(enough) >= 2)


def _best_of_budgets(law: IsoFlop) -> Growth:
    def at(compute: float) -> Interval:
        value, low, high = (float(v) for v in law.predict(compute))
        return value, low, high

    return Growth("iso-FLOP", law.params["exponent"], law.runs, at)


def _fixed(value: float) -> Growth:
    value = float(value)
    return Growth("fixed", 0.0, (), lambda _: (value, value, value))


def _labels(table: pl.DataFrame, found: dict[str, Array], of: NDArray[np.int64]) -> list[str]:
    """A label per run, equal for the seeds of one shape at one budget."""
    design = [v.tolist() for name, v in found.items() if name not in DERIVED]
    return [json.dumps(row) for row in zip(shapes(table), of.tolist(), *design)]
