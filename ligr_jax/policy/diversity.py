"""Diversity of ranked lists: distinct actors, similarity of content, alpha-NDCG of topics.

The measures judge the first k items of a list, whatever ranked it, so they are with the policies.
`ligr_jax.ops.metrics` judges the scores of a model by labels.

All arguments are arrays of L lists with N items each, in ranked order; `valid` is false for padding
behind shorter lists. A list with fewer than k items is judged as it is. The results have one value
per list, NaN where a measure is undefined; `np.nanmean` averages them.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def distinct_in_top(key: ArrayLike, k: int, valid: ArrayLike | None = None) -> NDArray[np.int64]:
    """Return the number of distinct keys, such as actors, among the first k items.

    Args:
        key: int [L, N].
        k: number of leading items.
        valid: bool [L, N], false for padding; None: no padding.

    Returns:
        int64 [L]; 0 for an empty list.

    Raises:
        ValueError: k is below 1, a shape differs, or an item follows padding.
    """
    key_LN = np.asarray(key)
    valid_LN = _lists(key_LN, 2, k, valid)[:, :k]
    key_LN = key_LN[:, :k]
    # An item is the first of its key if no earlier item is equal to it.
    equal_LNN = (key_LN[:, :, None] == key_LN[:, None, :]) & valid_LN[:, None, :]
    seen_LN = np.tril(equal_LNN, -1).any(2)
    distinct_L: NDArray[np.int64] = (valid_LN & ~seen_LN).sum(1, dtype=np.int64)
    return distinct_L


def intra_list_similarity(vectors: ArrayLike, k: int, valid: ArrayLike | None = None) -> Floats:
    """Return the mean cosine between the content vectors of all pairs among the first k items.

    ILS = sum_{i < j} cos(v_i, v_j) / (n (n - 1) / 2)

    Ziegler et al. (2005) define it as the sum, which grows with the length of the list.

    Args:
        vectors: float [L, N, W]; a vector of zeros has cosine 0 with all others.
        k: number of leading items.
        valid: bool [L, N], false for padding; None: no padding.

    Returns:
        float64 [L], in -1..1; NaN for a list of fewer than two items.

    Raises:
        ValueError: k is below 1, a shape differs, an item follows padding, or a vector of an item
            is not finite.
    """
    vectors_LNW = np.asarray(vectors, np.float64)
    valid_LN = _lists(vectors_LNW, 3, k, valid)[:, :k]
    vectors_LNW = vectors_LNW[:, :k]
    wrong = np.argwhere(~np.isfinite(vectors_LNW).all(2) & valid_LN)
    if len(wrong):
        raise ValueError(f"the vector of list {wrong[0][0]}, item {wrong[0][1]} is not finite")
    vectors_LNW = np.where(valid_LN[..., None], vectors_LNW, 0.0)
    norm_LN1 = np.linalg.norm(vectors_LNW, axis=2, keepdims=True)
    unit_LNW = vectors_LNW / np.where(norm_LN1 > 0, norm_LN1, 1.0)
    # sum_{i != j} u_i u_j = |sum u|^2 - sum |u|^2
    both_L = (unit_LNW.sum(1) ** 2).sum(1) - (unit_LNW**2).sum((1, 2))
    n_L = valid_LN.sum(1)
    return np.where(n_L > 1, both_L / np.maximum(n_L * (n_L - 1), 1), np.nan)


def alpha_ndcg(
    judgment: ArrayLike, k: int, alpha: float = 0.5, valid: ArrayLike | None = None
) -> Floats:
    """Return alpha-NDCG at k (Clarke et al. 2008): gain falls with repetition.

        gain_s = sum_t J_st prod_{r < s} (1 - alpha J_rt)
        DCG = sum_{s <= k} gain_s / log2(1 + s)

    with positions s = 1, 2, ... and topics t. If all judgments are 0 or 1, the product is
    (1 - alpha)^(number of earlier items with the topic), as in the paper; probabilities are
    allowed. DCG is divided by that of the ideal order of all items of the list, which is greedy as
    is usual, because the best order is NP-hard. An order can therefore be better than the ideal,
    if items have several topics. Ties of the greedy order do not depend on the list's order.

    Args:
        judgment: J, float [L, N, T] in 0..1: whether an item is relevant to a topic.
        k: number of leading items.
        alpha: in 0..1; 0 ignores topics, 1 gives no gain to a topic that is repeated.
        valid: bool [L, N], false for padding; None: no padding.

    Returns:
        float64 [L]; NaN for a list without a relevant item.

    Raises:
        ValueError: k is below 1, alpha or a judgment of an item is not in 0..1, a shape differs, or
            an item follows padding.
    """
    judgment_LNT = np.asarray(judgment, np.float64)
    valid_LN = _lists(judgment_LNT, 3, k, valid)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha} must be in 0..1, the loss by a repeated topic")
    inside_LN = ((judgment_LNT >= 0) & (judgment_LNT <= 1)).all(2)
    wrong = np.argwhere(~inside_LN & valid_LN)
    if len(wrong):
        raise ValueError(
            f"the judgments of list {wrong[0][0]}, item {wrong[0][1]} are not all in 0..1"
        )
    judgment_LNT = np.where(valid_LN[..., None], judgment_LNT, 0.0)
    lists, items, topics = judgment_LNT.shape
    row_L = np.arange(lists)
    # Equal gains are decided by the judgments, so that the ideal does not depend on the ranking.
    order_LN = np.lexsort(np.moveaxis(-judgment_LNT[..., ::-1], 2, 0), axis=1)
    pool_LNT = np.take_along_axis(judgment_LNT, order_LN[..., None], 1)
    free_LN = np.ones((lists, items), bool)
    fresh_LT, ideal_fresh_LT = np.ones((lists, topics)), np.ones((lists, topics))
    found_L, ideal_L = np.zeros(lists), np.zeros(lists)
    for place in range(min(k, items)):
        discount = np.log2(2.0 + place)
        found_L += (judgment_LNT[:, place] * fresh_LT).sum(1) / discount
        fresh_LT *= 1.0 - alpha * judgment_LNT[:, place]
        gain_LN = np.where(free_LN, np.einsum("lnt,lt->ln", pool_LNT, ideal_fresh_LT), -1.0)
        best_L = gain_LN.argmax(1)
        ideal_L += gain_LN[row_L, best_L] / discount
        ideal_fresh_LT *= 1.0 - alpha * pool_LNT[row_L, best_L]
        free_LN[row_L, best_L] = False
    defined_L = ideal_L > 0
    return np.where(defined_L, found_L / np.where(defined_L, ideal_L, 1.0), np.nan)


def _lists(array: NDArray[Any], axes: int, k: int, valid: ArrayLike | None) -> Flags:
    """Return the mask of items, bool [L, N], after checking k and the shapes."""
    if k < 1:
        raise ValueError(f"k={k} must be >= 1, the number of leading items")
    if array.ndim != axes:
        expected = "[lists, items]" if axes == 2 else "[lists, items, values]"
        raise ValueError(f"an array has shape {array.shape}; give {expected}")
    valid_LN = np.ones(array.shape[:2], bool) if valid is None else np.asarray(valid, bool)
    if valid_LN.shape != array.shape[:2]:
        raise ValueError(f"valid has shape {valid_LN.shape}; give {array.shape[:2]}")
    gaps = np.flatnonzero((valid_LN[:, 1:] & ~valid_LN[:, :-1]).any(1))
    if len(gaps):
        raise ValueError(f"list {gaps[0]} has an item behind padding; move padding to the end")
    return valid_LN
