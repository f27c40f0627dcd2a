"""Comparison of runs with a baseline and with a paper: paired changes, intervals, verdicts."""

import numpy as np
import polars as pl
from scipy import stats

from lib.results import Cell, interval

TASKS = ("click", "long_dwell", "contribution")


def differences(table: pl.DataFrame, metric: str) -> dict[str, tuple[float, float, float]]:
    """Return relative changes of a metric, paired by seed: mean and 90 % interval per change.

    The interval is Student's t with the standard deviation pooled over all changes of the table.

    Args:
        table: one row per run, with the columns `change` (`none` for the baseline),
            `config/train.seed` and the metric.
        metric: name of the column.
    """
    value = {
        (c, s): v for c, s, v in table.select("change", "config/train.seed", metric).iter_rows()
    }
    seeds = sorted({s for _, s in value})
    names = sorted({c for c, _ in value} - {"none"})
    ratios = {
        c: np.array([value[c, s] / value["none", s] - 1 for s in seeds if (c, s) in value])
        for c in names
    }
    # Noise of the changed run, and of the unchanged run, which is common to all changes.
    free = sum(len(r) - 1 for r in ratios.values())
    pooled = np.sqrt(sum(((r - r.mean()) ** 2).sum() for r in ratios.values()) / free)
    reach = {c: stats.t.ppf(0.95, free) * pooled / np.sqrt(len(r)) for c, r in ratios.items()}
    return {
        c: (float(r.mean()), float(r.mean() - reach[c]), float(r.mean() + reach[c]))
        for c, r in ratios.items()
    }


def against(table: pl.DataFrame, base: str, metric: str) -> dict[str, tuple[float, float, float]]:
    """Return relative changes of a metric from arm `base` to each other arm, in %: mean, interval.

    The table must have all arms, because the deviation is pooled over them.
    """
    changes = differences(table.with_columns(pl.col("change").replace(base, "none")), metric)
    return {arm: (100 * mean, 100 * low, 100 * high) for arm, (mean, low, high) in changes.items()}


def verdict(sign: float, low: float, high: float) -> str:
    """Return whether an interval has the paper's sign; 0 means that it should contain zero."""
    if low <= 0 <= high:
        return "open" if sign else "agrees"
    return "agrees" if sign * low > 0 else "differs"


def t_interval(x: np.ndarray) -> Cell:
    """Return the mean over seeds with its 90 % interval by Student's t; one seed has none."""
    mean = float(x.mean())
    if len(x) < 2:
        return mean
    half = float(stats.t.ppf(0.95, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return interval(mean, mean - half, mean + half)
