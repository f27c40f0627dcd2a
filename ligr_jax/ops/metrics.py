"""Ranking metrics in NumPy and float64, of whole evaluation sets: exact, not streamed.

Each takes flat arrays over impressions: `score` (logits: any increasing transform ranks the same),
`label` in {0, 1}, and a group (member or session) where it has one. A metric that is not defined
(one class only) is NaN. Predictions of hosts and batches are merged by concatenation.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def normalized_entropy(score: Floats, label: NDArray, base_rate: float | None = None) -> float:
    """Cross-entropy over the entropy of the base rate: CE / H(p); 1 is "knows only the rate".

    Args:
        base_rate: p; default the label's mean on this set, which keeps a sweep's NE comparable.
    """
    z, y = score.astype(np.float64), label.astype(np.float64)
    p = y.mean() if base_rate is None else base_rate
    if not 0 < p < 1:
        return float("nan")
    cross_entropy = np.mean(np.logaddexp(0.0, z) - z * y)
    return float(cross_entropy / -(p * np.log(p) + (1 - p) * np.log1p(-p)))


def auc(score: Floats, label: NDArray) -> float:
    """Area under the ROC curve, ties counting half."""
    return float(_grouped_auc(score, label, np.zeros(len(score), np.int64))[0][0])


def gauc(score: Floats, label: NDArray, member: NDArray) -> float:
    """AUC within each member that has both classes, averaged by impressions."""
    values, sizes = _grouped_auc(score, label, member)
    ok = ~np.isnan(values)
    return float(np.average(values[ok], weights=sizes[ok])) if ok.any() else float("nan")


def calibration(score: Floats, label: NDArray) -> float:
    """Sum of predicted probabilities over the number of positives."""
    positives = label.sum(dtype=np.float64)
    return float(_sigmoid(score).sum() / positives) if positives else float("nan")


def expected_calibration_error(score: Floats, label: NDArray, bins: int = 20) -> float:
    """Mean |predicted - observed| over `bins` bins of equal mass, weighted by their size.

    Tied scores share the mean of their labels, so the order of the input does not matter.
    """
    order = np.argsort(score, kind="stable")
    p, y = _sigmoid(score[order]), label[order].astype(np.float64)
    tied = np.cumsum(_changes(score[order])) - 1
    y = (np.bincount(tied, y) / np.bincount(tied))[tied]
    edges = np.linspace(0, len(p), bins + 1).astype(np.int64)
    gaps = np.abs(np.add.reduceat(np.append(p - y, 0.0), edges[:-1]))
    return float(gaps[np.diff(edges) > 0].sum() / len(p))


def ndcg(score: Floats, label: NDArray, session: NDArray) -> float:
    """Mean over sessions with a positive of DCG / ideal DCG; gain y, discount 1 / log2(rank + 1).

    Tied scores share the mean of their discounts, so the order of the input does not matter.
    """
    _, group = np.unique(session, return_inverse=True)
    order = np.lexsort((-score, group))
    g, s, y = group[order], score[order], label[order].astype(np.float64)
    starts = np.flatnonzero(_changes(g))
    discount = 1.0 / np.log2(2.0 + np.arange(len(g)) - starts[g])
    tied = np.cumsum(_changes(g) | _changes(s)) - 1
    shared = np.bincount(tied, discount) / np.bincount(tied)
    dcg = np.bincount(g, y * shared[tied])
    ideal_order = np.lexsort((-label, group))
    ideal = np.bincount(group[ideal_order], label[ideal_order].astype(np.float64) * discount)
    ok = ideal > 0
    return float(np.mean(dcg[ok] / ideal[ok])) if ok.any() else float("nan")


def _grouped_auc(score: Floats, label: NDArray, group: NDArray) -> tuple[Floats, NDArray]:
    """Per group: AUC by the rank-sum with mid-ranks (NaN without both classes), and its size."""
    _, g = np.unique(group, return_inverse=True)
    order = np.lexsort((score, g))
    g, s, y = g[order], score[order], label[order].astype(np.float64)
    size = np.bincount(g)
    first = np.cumsum(size) - size
    rank = np.arange(len(g)) - first[g] + 1.0
    tied = np.cumsum(_changes(g) | _changes(s)) - 1
    rank = (np.bincount(tied, rank) / np.bincount(tied))[tied]
    positives = np.bincount(g, y)
    negatives = size - positives
    wins = np.bincount(g, rank * y) - positives * (positives + 1) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(positives * negatives > 0, wins / (positives * negatives), np.nan), size


def _changes(x: NDArray) -> NDArray[np.bool_]:
    """True where a value differs from the one before it, and at the first; infinities are equal."""
    return np.concatenate([np.ones(min(1, len(x)), bool), x[1:] != x[:-1]])


def _sigmoid(z: Floats) -> Floats:
    return np.exp(-np.logaddexp(0.0, -z.astype(np.float64)))
