"""Gain in the metric per compute spent on each dimension of the shape (T, depth, width, ...)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ligr_jax.runs.columns import config_column
from ligr_jax.runs.run_table import RunTable
from ligr_jax.scaling.fit import CONFIDENCE, resample

DIMENSIONS = {
    config_column("data.seq_len"): "T",
    config_column("model.depth"): "depth",
    config_column("model.width"): "width",
    config_column("model.table_width"): "table width",
    config_column("data.fraction"): "data",
}
SETTINGS = {name: setting for setting, name in DIMENSIONS.items()}
# Settings that change with a dimension: tokens per batch stay equal, and heads divide the width.
FOLLOWS = {
    config_column("data.seq_len"): (config_column("optim.batch"),),
    config_column("model.width"): (config_column("model.heads"),),
}
BUDGET = config_column("train.flops")  # a run that spends a budget sees less data if it is larger
FEWEST_VALUES = 3  # values of a dimension that a line needs
CHEAP = np.log10(1.15)  # decades of compute per doubling below which a dimension is nearly free
Array = NDArray[np.float64]


class Line(NamedTuple):
    """Runs that differ only in one dimension (and seed), as row numbers of the table."""

    dimension: str
    rows: list[int]


@dataclass(frozen=True)
class Gain:
    """Gain in the metric from growing one dimension.

    Attributes:
        dimension: name of the dimension.
        span: its smallest and largest value among the runs.
        runs: number of runs.
        per_doubling: decrease of the metric per doubling of the dimension.
        per_doubling_interval: bootstrap interval of it; None without resamples.
        cost: factor of compute per doubling.
        per_decade: decrease of the metric if tenfold compute is spent on this dimension alone;
            None if the dimension is nearly free.
        per_decade_interval: bootstrap interval of it.
    """

    dimension: str
    span: tuple[float, float]
    runs: int
    per_doubling: float
    per_doubling_interval: tuple[float, float] | None
    cost: float
    per_decade: float | None
    per_decade_interval: tuple[float, float] | None

    @property
    def free_gain(self) -> bool:
        """Return whether it is nearly free and its interval excludes zero gain."""
        low = self.per_doubling_interval[0] if self.per_doubling_interval else 0.0
        return self.per_decade is None and low > 0


@dataclass(frozen=True)
class Gains:
    """Gains of all dimensions on one compute axis.

    Attributes:
        rows: gain of each dimension.
        how: "apart" (from sweeps that vary one dimension each) or "together" (one regression on
            all dimensions).
        best: dimension with the largest gain per decade; "" if there is none.
        share: fraction of resamples in which `best` has the largest gain.
        reason: why there are no gains, or no best dimension.
        inseparable: dimensions that only grow together, if that is the reason.
    """

    rows: tuple[Gain, ...] = ()
    how: str = ""
    best: str = ""
    share: float = 0.0
    reason: str = ""
    inseparable: tuple[str, ...] = ()

    @property
    def free(self) -> tuple[Gain, ...]:
        """Return the nearly free dimensions with a gain, largest gain per doubling first."""
        rows = [row for row in self.rows if row.free_gain]
        return tuple(sorted(rows, key=lambda row: -row.per_doubling))

    @property
    def answer(self) -> tuple[str, ...]:
        """Return what to scale next: the nearly free dimensions, else the best one."""
        return tuple(row.dimension for row in self.free) or ((self.best,) if self.best else ())


def lines(table: RunTable) -> list[Line]:
    """Return, per dimension, the largest set of runs that differ only in that dimension.

    A set needs three values of the dimension. Runs that spend a budget of FLOPs are left out:
    their data shrinks as a dimension grows.
    """
    result = []
    unbudgeted = set(_unbudgeted(table))
    for c in _used(table):
        fixed = [v for v in table.varied() if v not in (c, *FOLLOWS.get(c, ()))]
        groups: dict[str, list[int]] = {}
        for i, label in enumerate(table.labels(fixed)):
            if i in unbudgeted:
                groups.setdefault(label, []).append(i)
        if not groups:
            continue
        values = {k: table.take(rows).distinct(c) for k, rows in groups.items()}
        best = max(groups, key=lambda k: (values[k], len(groups[k])))
        if values[best] >= FEWEST_VALUES:
            result.append(Line(dimension=DIMENSIONS[c], rows=groups[best]))
    return result


def gains(table: RunTable, metric: str, axis: str, resamples: int = 1000, seed: int = 0) -> Gains:
    """Estimate the gain per decade of compute of each dimension d.

    The gain is -(d metric / d log2 d) / (d log10 C / d log2 d). If two dimensions or more have a
    line of runs that vary only that dimension, each slope is from its line. Otherwise metric and
    log10 C are regressed on the log2 of all dimensions together, which assumes that their effects
    add up. Dimensions that only grow together are not separated.

    Args:
        table: runs of one architecture.
        metric: column of the metric, lower is better.
        axis: column of compute.
        resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.

    Returns:
        The gains; `reason` says why there are none.
    """
    apart = lines(table)
    if len(apart) > 1:
        parts = [
            _rates(
                table.take(line.rows),
                [[SETTINGS[line.dimension]]],
                metric,
                axis,
                resamples,
                seed + i,
            )
            for i, line in enumerate(apart)
        ]
        rows = [row for part, _ in parts for row in part]
        return _ranked(rows, np.concatenate([draws for _, draws in parts], 1), "apart")

    table = table.take(_unbudgeted(table))
    used = _used(table) if len(table) else []
    if not used:
        return Gains(reason="every run has the same shape")
    # Dimensions that are almost perfectly correlated are one bundle with one slope.
    x = np.log2(np.stack([table.numbers(c) for c in used], 1))
    bundles: list[list[int]] = []
    for i in range(len(used)):
        same = [b for b in bundles if abs(np.corrcoef(x[:, b[0]], x[:, i])[0, 1]) > 0.9]
        if same:
            same[0].append(i)
        else:
            bundles.append([i])
    names = tuple(" + ".join(DIMENSIONS[used[i]] for i in b) for b in bundles)
    # The regression is refused if the design is ill-conditioned or has too few runs: its slopes
    # would be arbitrary.
    first_of_bundle = np.stack([x[:, b[0]] for b in bundles], 1)
    standardized = (first_of_bundle - first_of_bundle.mean(0)) / first_of_bundle.std(0)
    singular = np.linalg.svd(standardized, compute_uv=False)
    if len(names) == 1 or singular[-1] < 0.25 * singular[0] or len(x) < len(names) + 3:
        reason = (
            f"only {names[0]} varies" if len(used) == 1 else f"{', '.join(names)} grow together"
        )
        return Gains(reason=reason, inseparable=tuple(DIMENSIONS[c] for c in used))
    columns = [[used[i] for i in b] for b in bundles]
    return _ranked(*_rates(table, columns, metric, axis, resamples, seed), "together")


def _rates(
    table: RunTable,
    bundles: Sequence[Sequence[str]],
    metric: str,
    axis: str,
    resamples: int,
    seed: int,
) -> tuple[list[Gain], Array]:
    """Regress metric and log10 compute on log2 of the bundles' dimensions.

    Returns:
        The gain of each bundle, and gains per decade (1 + resamples, bundles): the estimate, then
        the draws. NaN: nearly free, or the resample does not determine the slopes.
    """
    x = np.log2(np.stack([table.numbers(bundle[0]) for bundle in bundles], 1))
    design = np.concatenate([np.ones((len(x), 1)), x], 1)
    compute = table.numbers(axis)
    y = np.stack([-table.numbers(metric), np.log10(compute)], 1)
    distinct = np.unique(x, axis=0, return_inverse=True)[1].ravel()
    # `resample` wants enough distinct budgets in a resample. Here it must be distinct shapes, as
    # compute may be equal for all (flops_paper does not count the width of a table), so it gets
    # one artificial budget per shape.
    pseudo_compute = 1.1 ** distinct.astype(np.float64)
    counts, _, _ = resample(pseudo_compute, table.shapes(), design.shape[1], resamples, seed)
    counts = np.concatenate([np.ones((1, len(x))), counts])
    # Weighted normal equations of all resamples in one batch.
    gram = np.einsum("np,bn,nq->bpq", design, counts, design, optimize=True)
    right = np.einsum("np,bn,nk->bpk", design, counts, y, optimize=True)
    solvable = np.linalg.cond(gram) < 1e8
    slopes = np.full((len(counts), len(bundles), 2), np.nan)
    slopes[solvable] = np.linalg.solve(gram[solvable], right[solvable])[:, 1:]
    gain = slopes[..., 0]
    cost = slopes[..., 1]
    rate = np.where(cost > CHEAP, gain / np.maximum(cost, CHEAP), np.nan)
    rows = [
        Gain(
            dimension=" + ".join(DIMENSIONS[c] for c in bundle),
            span=(float(2 ** x[:, i].min()), float(2 ** x[:, i].max())),
            runs=len(x),
            per_doubling=float(gain[0, i]),
            per_doubling_interval=_interval(gain[1:, i]),
            cost=float(10 ** cost[0, i]),
            per_decade=float(rate[0, i]) if np.isfinite(rate[0, i]) else None,
            per_decade_interval=_interval(rate[1:, i]) if np.isfinite(rate[0, i]) else None,
        )
        for i, bundle in enumerate(bundles)
    ]
    full = np.full((1 + resamples, len(bundles)), np.nan)
    full[: len(rate)] = rate
    return rows, full


def _interval(draws: Array) -> tuple[float, float] | None:
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return None
    low, high = np.percentile(draws, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    return float(low), float(high)


def _ranked(rows: Sequence[Gain], rate: Array, how: str) -> Gains:
    """Choose the dimension with the largest gain per decade, and how often the draws agree."""
    costly = np.isfinite(rate[0])
    if not costly.any():
        return Gains(rows=tuple(rows), how=how, reason="no dimension costs compute on this axis")
    score = np.where(costly & np.isfinite(rate), rate, -np.inf)
    best = int(np.argmax(score[0]))
    draws = score[1:][np.isfinite(score[1:, costly]).all(1)]
    share = float(np.mean(np.argmax(draws, axis=1) == best)) if len(draws) else float("nan")
    return Gains(rows=tuple(rows), how=how, best=rows[best].dimension, share=share)


def _unbudgeted(table: RunTable) -> list[int]:
    """Return the row numbers of the runs whose data does not follow from a budget of FLOPs."""
    if not table.has(BUDGET):
        return list(range(len(table)))
    return [i for i, flops in enumerate(np.nan_to_num(table.numbers(BUDGET))) if not flops]


def _used(table: RunTable) -> list[str]:
    """Return the columns of dimensions that are known for all runs and differ between them."""
    known = [c for c in DIMENSIONS if table.has(c) and (table.numbers(c) > 0).all()]
    return [c for c in known if table.distinct(c) > 1]
