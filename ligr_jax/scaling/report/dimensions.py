"""What each dimension of the shape buys for its compute, from sweeps that vary one, or from all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ligr_jax.scaling.fit import CONFIDENCE, resample
from ligr_jax.scaling.runs import column, labels, shapes, varied

DIMENSIONS = {
    "config/data.seq_len": "T",
    "config/model.depth": "depth",
    "config/model.width": "width",
    "config/model.table_width": "table width",
    "config/data.fraction": "data",
}
SETTINGS = {name: setting for setting, name in DIMENSIONS.items()}
# What has to change with a dimension: tokens of a batch stay equal, and heads divide the width.
FOLLOWS = {
    "config/data.seq_len": ("config/optim.batch",),
    "config/model.width": ("config/model.heads",),
}
FEWEST_VALUES = 3  # of a dimension, for a line of it
CHEAP = np.log10(1.15)  # decades of compute per doubling below which a dimension is nearly free
Array = NDArray[np.float64]


class Line(NamedTuple):
    """Runs that differ in one dimension (and seed) alone. rows: their places in the table."""

    dimension: str
    rows: list[int]


@dataclass(frozen=True)
class Gain:
    """What one dimension buys. span: its smallest and largest value among the runs.

    per_doubling: fall of the metric, with interval. cost: factor of compute per doubling.
    per_decade: fall of the metric when tenfold compute is spent on it alone, with interval; None
        where it is nearly free.
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
        """Whether it surely lowers the metric and costs next to nothing."""
        low = self.per_doubling_interval[0] if self.per_doubling_interval else 0.0
        return self.per_decade is None and low > 0


@dataclass(frozen=True)
class Gains:
    """Gains of all dimensions on one compute axis, or in `reason` why there are none.

    how: "apart" (sweeps that vary one thing) or "together" (all runs regressed at once).
    best: the dimension of the largest gain per decade; share: of resamples in which it is best.
    inseparable: dimensions that only grow together, where that is the reason.
    """

    rows: tuple[Gain, ...] = ()
    how: str = ""
    best: str = ""
    share: float = 0.0
    reason: str = ""
    inseparable: tuple[str, ...] = ()

    @property
    def free(self) -> tuple[Gain, ...]:
        """Dimensions to grow before any that costs compute, the one that gains most first."""
        rows = [row for row in self.rows if row.free_gain]
        return tuple(sorted(rows, key=lambda row: -row.per_doubling))

    @property
    def answer(self) -> tuple[str, ...]:
        """What to scale next: what is nearly free, else the best."""
        return tuple(row.dimension for row in self.free) or ((self.best,) if self.best else ())


def lines(table: pl.DataFrame) -> list[Line]:
    """For each dimension the most runs that differ in it alone, at three of its values or more."""
    found = []
    for c in _used(table):
        held = [v for v in varied(table) if v not in (c, *FOLLOWS.get(c, ()))]
        alike: dict[str, list[int]] = {}
        for i, label in enumerate(labels(table, held)):
            alike.setdefault(label, []).append(i)
        values = {k: table[rows][c].n_unique() for k, rows in alike.items()}
        best = max(alike, key=lambda k: (values[k], len(alike[k])))
        if values[best] >= FEWEST_VALUES:
            found.append(Line(DIMENSIONS[c], alike[best]))
    return found


def gains(
    table: pl.DataFrame, metric: str, axis: str, resamples: int = 1000, seed: int = 0
) -> Gains:
    """Gain per decade of each dimension, -(d metric / d log2 d) / (d log10 C / d log2 d).

    From lines of runs that vary one dimension where there are two or more such lines; otherwise
    metric and log10 C are regressed on the log2 of all dimensions at once, which takes their
    effects to add up. Dimensions that only move together are not told apart.
    """
    apart = lines(table)
    if len(apart) > 1:
        parts = [
            _rates(
                table[line.rows], [[SETTINGS[line.dimension]]], metric, axis, resamples, seed + i
            )
            for i, line in enumerate(apart)
        ]
        rows = [row for part, _ in parts for row in part]
        return _ranked(rows, np.concatenate([draws for _, draws in parts], 1), "apart")
    used = _used(table)
    if not used:
        return Gains(reason="every run has the same shape")
    x = np.log2(np.stack([column(table, c) for c in used], 1))
    bundles: list[list[int]] = []
    for i in range(len(used)):
        same = [b for b in bundles if abs(np.corrcoef(x[:, b[0]], x[:, i])[0, 1]) > 0.9]
        if same:
            same[0].append(i)
        else:
            bundles.append([i])
    names = tuple(" + ".join(DIMENSIONS[used[i]] for i in b) for b in bundles)
    firsts = np.stack([x[:, b[0]] for b in bundles], 1)
    strength = np.linalg.svd((firsts - firsts.mean(0)) / firsts.std(0), compute_uv=False)
    if len(names) == 1 or strength[-1] < 0.25 * strength[0] or len(x) < len(names) + 3:
        alone = len(used) == 1
        reason = f"only {names[0]} varies" if alone else f"{', '.join(names)} grow together"
        return Gains(reason=reason, inseparable=tuple(DIMENSIONS[c] for c in used))
    columns = [[used[i] for i in b] for b in bundles]
    return _ranked(*_rates(table, columns, metric, axis, resamples, seed), "together")


def _rates(
    table: pl.DataFrame,
    bundles: Sequence[Sequence[str]],
    metric: str,
    axis: str,
    resamples: int,
    seed: int,
) -> tuple[list[Gain], Array]:
    """Gains of the bundles, and their gain per decade (1 + resamples, bundles): estimate, draws."""
    x = np.log2(np.stack([column(table, bundle[0]) for bundle in bundles], 1))
    design = np.concatenate([np.ones((len(x), 1)), x], 1)
    compute = column(table, axis)
    y = np.stack([-column(table, metric), np.log10(compute)], 1)
    distinct = np.unique(x, axis=0, return_inverse=True)[1].ravel()
    # Shapes stand for budgets: compute may be the same for all (a table's width on flops_paper).
    stand_in = 1.1 ** distinct.astype(np.float64)
    counts, _, _ = resample(stand_in, shapes(table), design.shape[1], resamples, seed)
    counts = np.concatenate([np.ones((1, len(x))), counts])
    gram = np.einsum("np,bn,nq->bpq", design, counts, design, optimize=True)
    right = np.einsum("np,bn,nk->bpk", design, counts, y, optimize=True)
    solvable = np.linalg.cond(gram) < 1e8
    slopes = np.full((len(counts), len(bundles), 2), np.nan)
    slopes[solvable] = np.linalg.solve(gram[solvable], right[solvable])[:, 1:]
    gain, cost = slopes[..., 0], slopes[..., 1]
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
    priced = np.isfinite(rate[0])
    if not priced.any():
        return Gains(tuple(rows), how, reason="no dimension costs compute on this axis")
    score = np.where(priced & np.isfinite(rate), rate, -np.inf)
    best = int(np.argmax(score[0]))
    drawn = score[1:][np.isfinite(score[1:, priced]).all(1)]
    share = float(np.mean(np.argmax(drawn, axis=1) == best)) if len(drawn) else float("nan")
    return Gains(tuple(rows), how, rows[best].dimension, share)


def _used(table: pl.DataFrame) -> list[str]:
    """Dimensions that differ between runs and are known for all of them."""
    known = [c for c in DIMENSIONS if c in table.columns and (column(table, c) > 0).all()]
    return [c for c in known if table[c].n_unique() > 1]
