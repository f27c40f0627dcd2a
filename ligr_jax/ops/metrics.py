"""Ranking metrics of whole evaluation sets, in NumPy and float64: exact, not streamed.

All arguments are flat arrays over n impressions: `score`, float logits (ranking metrics depend only
on their order); `label` in {0, 1}; and the group of each impression (member or session), any
integers. A metric that is undefined because only one class occurs is NaN. To evaluate the
predictions of several hosts or batches, concatenate them first.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ligr_jax.ops.segments import segments, starts_segment

Floats = NDArray[np.floating]


def normalized_entropy(score: Floats, label: NDArray[Any], base_rate: float | None = None) -> float:
    """Return cross-entropy over the entropy of the base rate, CE / H(p).

    A model that predicts the base rate for every impression has a normalized entropy of 1.

    Args:
        score: [n], logits.
        label: [n], 0 or 1.
        base_rate: p; by default the mean label of this set, so runs of a sweep are comparable.
    """
    z = score.astype(np.float64)
    y = label.astype(np.float64)
    p = y.mean() if base_rate is None else base_rate
    if not 0 < p < 1:
        return float("nan")
    cross_entropy = np.mean(np.logaddexp(0.0, z) - z * y)
    return float(cross_entropy / -(p * np.log(p) + (1 - p) * np.log1p(-p)))


def auc(score: Floats, label: NDArray[Any]) -> float:
    """Return the area under the ROC curve; a tie counts half.

    Args:
        score: [n], logits.
        label: [n], 0 or 1.
    """
    return float(_grouped_auc(score, label, np.zeros(len(score), np.int64))[0][0])


def gauc(score: Floats, label: NDArray[Any], member: NDArray[Any]) -> float:
    """Return the AUC within each member that has both classes, averaged by impressions.

    Args:
        score: [n], logits.
        label: [n], 0 or 1.
        member: [n], the member of each impression.
    """
    values, sizes = _grouped_auc(score, label, member)
    defined = ~np.isnan(values)
    if not defined.any():
        return float("nan")
    return float(np.average(values[defined], weights=sizes[defined]))


def calibration(score: Floats, label: NDArray[Any]) -> float:
    """Return the sum of predicted probabilities over the number of positives; 1 is calibrated.

    Args:
        score: [n], logits.
        label: [n], 0 or 1.
    """
    positives = label.sum(dtype=np.float64)
    return float(_sigmoid(score).sum() / positives) if positives else float("nan")


def expected_calibration_error(score: Floats, label: NDArray[Any], bins: int = 20) -> float:
    """Return mean |predicted - observed| over bins of equal mass, weighted by their size.

    Tied scores share the mean of their labels, so the order of the input does not matter.

    Args:
        score: [n], logits.
        label: [n], 0 or 1.
        bins: number of bins.
    """
    order = np.argsort(score, kind="stable")
    p = _sigmoid(score[order])
    y = label[order].astype(np.float64)
    tied = np.cumsum(starts_segment(score[order])) - 1
    y = (np.bincount(tied, y) / np.bincount(tied))[tied]
    edges = np.linspace(0, len(p), bins + 1).astype(np.int64)
    gaps = np.abs(np.add.reduceat(np.append(p - y, 0.0), edges[:-1]))
    return float(gaps[np.diff(edges) > 0].sum() / len(p))


def ndcg(score: Floats, label: NDArray[Any], session: NDArray[Any]) -> float:
    """Return the mean of DCG / ideal DCG over sessions with a positive.

    The gain is y, the discount 1 / log2(rank + 1) with ranks from 1, without a cut-off. Tied scores
    share the mean of their discounts, so the order of the input does not matter.

    Args:
        score: [n], logits.
        label: [n], 0 or 1.
        session: [n], the session of each impression.
    """
    _, group = np.unique(session, return_inverse=True)
    order = np.lexsort((-score, group))
    g, s, y = group[order], score[order], label[order].astype(np.float64)
    starts, _ = segments(g)
    discount = 1.0 / np.log2(2.0 + np.arange(len(g)) - starts[g])
    tied = np.cumsum(starts_segment(g, s)) - 1
    shared = np.bincount(tied, discount) / np.bincount(tied)
    dcg = np.bincount(g, y * shared[tied])
    ideal_order = np.lexsort((-label, group))
    ideal = np.bincount(group[ideal_order], label[ideal_order].astype(np.float64) * discount)
    defined = ideal > 0
    return float(np.mean(dcg[defined] / ideal[defined])) if defined.any() else float("nan")


def hit_rate(better: NDArray[Any], tied: NDArray[Any], k: int) -> float:
    """Return HR@k: the mean over targets of whether the rank of the target is at most k.

    A target that has the score of t other candidates has each of its t + 1 ranks with equal
    probability, so ties cannot raise the metric.

    Args:
        better: int [n], number of candidates with a higher score than the target.
        tied: int [n], number of other candidates with the score of the target.
        k: cut-off.
    """
    return float(np.mean(np.clip(k - better, 0, tied + 1) / (tied + 1)))


def ndcg_of_target(better: NDArray[Any], tied: NDArray[Any], k: int) -> float:
    """Return NDCG@k with one relevant candidate: the mean of 1 / log2(rank + 1) for ranks <= k.

    Arguments and ties are those of `hit_rate`.
    """
    discounts = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])
    total = discounts[np.minimum(better + tied + 1, k)] - discounts[np.minimum(better, k)]
    return float(np.mean(total / (tied + 1)))


def _grouped_auc(
    score: Floats, label: NDArray[Any], group: NDArray[Any]
) -> tuple[Floats, NDArray[Any]]:
    """Return each group's AUC and size; the AUC is the rank sum with mid-ranks, or NaN."""
    _, g = np.unique(group, return_inverse=True)
    order = np.lexsort((score, g))
    g, s, y = g[order], score[order], label[order].astype(np.float64)
    size = np.bincount(g)
    first = np.cumsum(size) - size
    rank = np.arange(len(g)) - first[g] + 1.0
    tied = np.cumsum(starts_segment(g, s)) - 1
    rank = (np.bincount(tied, rank) / np.bincount(tied))[tied]
    positives = np.bincount(g, y)
    negatives = size - positives
    wins = np.bincount(g, rank * y) - positives * (positives + 1) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(positives * negatives > 0, wins / (positives * negatives), np.nan), size


def _sigmoid(z: Floats) -> Floats:
    return np.exp(-np.logaddexp(0.0, -z.astype(np.float64)))
