"""How each dimension of the best runs grows with compute, with intervals; NumPy only.

Two rules, chosen for each dimension by what the runs hold:

    iso-FLOP   several budgets hold three values or more of the dimension: a parabola in its
               logarithm per budget, a power law through the minima
    ladder     else: a power law through the frontier: the best shapes of budgets that beat all
               smaller ones

A dimension that never varies stays as it is.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit import CONFIDENCE, IsoFlop, budgets, fit_isoflop
from ligr_jax.scaling.runs import column, shapes

Array = NDArray[np.float64]
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
    """One dimension's rule. at: its value at a compute, with an interval."""

    how: Literal["fixed", "ladder", "iso-FLOP"]
    exponent: float
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
    labels, names = _labels(table, found, of), table["run"].to_numpy()
    frontier = _Frontier(labels, np.log(compute), loss)
    best = frontier.runs()
    if len(frontier.best) < 2:
        raise BadInput(
            f"no run is better than the smallest, {names[best[0]]}: {metric} does not improve with "
            f"{axis}; look at the training before scaling it"
        )
    known = {name: _fixed(values) for name, values in found.items() if np.ptp(values) == 0}
    warnings = []
    for name in [name for name in found if name not in known]:
        values = found[name]
        if values.min() <= 0:
            known[name] = _fixed(values[best])
            warnings.append(f"{name} is 0 in some runs: kept as in the best run")
        elif (kept := _several_shapes(of, values)).any() and name not in DERIVED:
            try:
                law = fit_isoflop(
                    compute[kept],
                    values[kept],
                    loss[kept],
                    runs=names[kept].tolist(),
                    groups=[label for label, k in zip(labels, kept) if k],
                    resamples=resamples,
                    seed=seed,
                )
                known[name] = _best_of_budgets(law)
                warnings += [f"{name}: {w}" for w in law.warnings]
            except BadInput as e:
                warnings.append(f"{name}: {e}; until then it grows as along the frontier")
    counts = np.random.default_rng(seed).multinomial(
        len(loss), np.full(len(loss), 1 / len(loss)), size=resamples
    )
    left = {name: np.log(values) for name, values in found.items() if name not in known}
    known |= frontier.power_laws(left, counts)
    ordered = {name: known[name] for name in found}
    span = (float(compute.min()), float(compute.max()))
    return Rule(axis, ordered, tuple(names[best]), span, tuple(warnings))


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


class _Frontier:
    """Shapes by compute, each with the mean over its seeds, and those of them that are best."""

    def __init__(self, labels: Sequence[str], x: Array, loss: Array) -> None:
        self.x, self.loss = x, loss
        _, self.shape = np.unique(labels, return_inverse=True)
        member = np.eye(self.shape.max() + 1)[self.shape]  # [runs, shapes]
        self.centre = (member.T @ x) / member.sum(0)
        order = np.argsort(self.centre)
        self.member, self.centre = member[:, order], self.centre[order]
        self.level = budgets(np.exp(self.centre))
        self.best = np.flatnonzero(self.on_it(np.ones((1, len(x))))[0])

    def on_it(self, counts: NDArray[Any]) -> NDArray[np.bool_]:
        """bool [resamples, shapes]: the best of their budget, if they beat all smaller budgets."""
        weight = counts @ self.member
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(weight > 0, (counts * self.loss) @ self.member / weight, np.inf)
        best = np.stack([mean[:, self.level == k].min(1) for k in np.unique(self.level)], 1)
        before = np.minimum.accumulate(best, axis=1)[:, :-1]
        before = np.concatenate([np.full((len(mean), 1), np.inf), before], 1)
        return (mean == best[:, self.level]) & (mean < before[:, self.level])

    def runs(self) -> NDArray[np.int64]:
        """The frontier's runs, cheapest shape first."""
        return np.concatenate([np.flatnonzero(self.member[:, s]) for s in self.best])

    def power_laws(self, logs: dict[str, Array], counts: NDArray[Any]) -> dict[str, Growth]:
        """log dimension = a + b log C by least squares over the frontier, for each dimension."""
        everyone = np.ones((1, len(self.x)))
        lines = {}
        for name, y in logs.items():
            of_shape = (self.member.T @ y) / self.member.sum(0)
            value = _line(self.on_it(everyone), self.centre, of_shape)[0]
            draws = _line(self.on_it(counts), self.centre, of_shape)
            lines[name] = _grown(value, draws[np.isfinite(draws).all(1)], len(self.best))
        return lines


def _line(on_it: NDArray[np.bool_], x: Array, y: Array) -> Array:
    """Intercept and slope [.., 2] through the chosen points; NaN where they are one."""
    w = on_it / on_it.sum(1, keepdims=True)
    mean_x, mean_y = w @ x, w @ y
    spread = w @ x**2 - mean_x**2
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = np.where(spread > 1e-9, (w @ (x * y) - mean_x * mean_y) / spread, np.nan)
    return np.stack([mean_y - slope * mean_x, slope], -1)


def _grown(value: Array, draws: Array, points: int) -> Growth:
    left = points - 2
    tail = 0.5 * (1 + CONFIDENCE)
    wider = np.sqrt(points / left) * stats.t.ppf(tail, left) / stats.norm.ppf(tail) if left else 1.0

    def at(compute: float) -> Interval:
        basis = np.array([1.0, np.log(compute)])
        middle = float(value @ basis)
        if not left or not len(draws):
            return float(np.exp(middle)), np.nan, np.nan
        drawn = middle + wider * (draws @ basis - middle)
        low, high = np.exp(np.quantile(drawn, [1 - tail, tail]))
        return float(np.exp(middle)), float(low), float(high)

    return Growth("ladder", float(value[1]), at)


def _several_shapes(of: NDArray[np.int64], values: Array) -> NDArray[np.bool_]:
    """bool [runs]: those of budgets with three values or more, if there are two such budgets."""
    enough = [k for k in range(of.max() + 1) if len(np.unique(values[of == k])) >= 3]
    return np.isin(of, enough) & (len(enough) >= 2)


def _best_of_budgets(law: IsoFlop) -> Growth:
    def at(compute: float) -> Interval:
        value, low, high = (float(v) for v in law.predict(compute))
        return value, low, high

    return Growth("iso-FLOP", law.params["exponent"], at)


def _fixed(values: Array) -> Growth:
    value = float(values[-1])
    return Growth("fixed", 0.0, lambda _: (value, value, value))


def _labels(table: pl.DataFrame, found: dict[str, Array], of: NDArray[np.int64]) -> list[str]:
    """A label per run, equal for the seeds of one shape at one budget."""
    design = [v.tolist() for name, v in found.items() if name not in DERIVED]
    return [json.dumps(row) for row in zip(shapes(table), of.tolist(), *design)]
