"""Metrics of a day, the choice on 5 May, and paired differences with a bootstrap over members.

Scores are float arrays [rows], one value per impression of `Rows`, NaN where a model has none.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from lib.kuairand.data import Rows
from lib.results import Cell, interval
from ligr_jax.ops import metrics

CHOICE, REPORT = "validation", "test"  # 5 May, 6 May
SHOWN = ("click", "long_dwell", "like")  # actions of the tables
RESAMPLES = 1000
Scores = Mapping[str, np.ndarray]  # by action


def measure(rows: Rows, action: str, score: np.ndarray, split: str) -> dict[str, float]:
    """Return NE, AUC and GAUC of one action on a day."""
    day = rows.splits[split]
    z, y = score[day], rows.labels[action][day]
    return {
        "ne": metrics.normalized_entropy(z, y),
        "auc": metrics.auc(z, y),
        "gauc": metrics.gauc(z, y, rows.member[day]),
    }


def value_on_choice(rows: Rows, action: str, runs: Sequence[np.ndarray]) -> float:
    """Return what all dials are chosen by: the mean of AUC and GAUC on 5 May, over the runs."""
    values = [measure(rows, action, score, CHOICE) for score in runs]
    return float(np.mean([(v["auc"] + v["gauc"]) / 2 for v in values]))


def best(rows: Rows, action: str, candidates: Iterable[np.ndarray]) -> np.ndarray:
    """Return the candidate with the largest value on 5 May."""
    return max(candidates, key=lambda score: value_on_choice(rows, action, [score]))


def differences(
    rows: Rows, action: str, ours: Sequence[np.ndarray], other: np.ndarray
) -> list[Cell]:
    """Return by how much AUC and GAUC of our seeds exceed another model's on 6 May.

    Members are drawn with replacement, the same for both sides. The value is the mean over the
    seeds on all members, its interval the 5 % and 95 % quantiles of that mean over the resamples.
    """
    day = rows.splits[REPORT]
    label = rows.labels[action][day]
    _, member = np.unique(rows.member[day], return_inverse=True)
    rng = np.random.default_rng(0)
    members = int(member.max()) + 1
    draws = [np.ones(members, np.int64)]
    for _ in range(RESAMPLES):
        drawn = rng.integers(0, members, members)
        draws.append(np.bincount(drawn, minlength=members))
    values = [_weighted(score[day], label, member, draws) for score in (*ours, other)]
    gain = np.mean(values[:-1], axis=0) - values[-1]
    low, high = np.quantile(gain[1:], [0.05, 0.95], axis=0)
    return [interval(*cell) for cell in zip(gain[0], low, high)]


def _weighted(
    score: np.ndarray, label: np.ndarray, member: np.ndarray, draws: Sequence[np.ndarray]
) -> np.ndarray:
    """Return AUC and GAUC, [draws, 2], where a member counts as often as it was drawn."""
    _, rank = np.unique(score, return_inverse=True)
    positive, negative = (np.flatnonzero(label == y) for y in (1, 0))
    order = np.argsort(member, kind="stable")
    starts = np.flatnonzero(np.diff(member[order], prepend=-1))
    each = np.array([metrics.auc(score[rows], label[rows]) for rows in np.split(order, starts[1:])])
    size = np.where(np.isnan(each), 0, np.bincount(member))
    each = np.nan_to_num(each)
    out = np.empty((len(draws), 2))
    for k, times in enumerate(draws):
        losses = np.bincount(rank[negative], times[member[negative]], minlength=rank.max() + 1)
        below = np.cumsum(losses) - losses / 2  # ties count half
        weight = times[member[positive]]
        out[k, 0] = (weight * below[rank[positive]]).sum() / (weight.sum() * losses.sum())
        out[k, 1] = np.average(each, weights=times * size)
    return out
