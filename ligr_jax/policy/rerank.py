"""Rule-based re-ranking: items of one kind keep a minimum gap, in the order of the scores.

LinkedIn's feed had such rules behind a point-wise ranker (LiGR 3.2, 6.1): "a minimum gap of two
items" between items of one actor, and between out-of-network items. Set-wise layers replaced them.

The order is greedy. Each position gets the candidate with the highest score among those that break
no rule. If every remaining candidate breaks a rule, a rule is relaxed at this position only, and
the earlier rule has priority: candidates that keep the first rule are preferred to those that break
it, among equals those that keep the second rule, and so on; the score decides last.

    rules = [GapRule(actor_BC), GapRule(np.where(out_of_network_BC, 0, -1))]
    order_BC = rerank_by_rules(score_BC, rules)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class GapRule:
    """Items with the same key have at least `between` other items between them.

    key: int [B, C], key of each candidate, such as its actor; negative if the rule does not concern
        the candidate.
    between: 2 in the paper, where positions of one key differ by at least 3; 1 forbids only
        neighbours, and 0 nothing.

    Raises:
        ValueError: `between` is negative.
    """

    key: ArrayLike
    between: int = 2

    def __post_init__(self) -> None:
        if self.between < 0:
            raise ValueError(f"between={self.between} must be >= 0, the number of items of a gap")


def rerank_by_rules(
    score: ArrayLike,
    rules: Sequence[GapRule],
    valid: ArrayLike | None = None,
    top: int | None = None,
) -> Ints:
    """Return the order of the candidates of every request under the rules.

    The work is `top` passes over [B, C] for each rule. Equal scores keep the order of the input.

    Args:
        score: float [B, C]; the highest is ranked first.
        rules: earlier rules have priority where not all can be kept.
        valid: bool [B, C], false for padding, which is ranked last; None: no padding.
        top: number of leading positions that the rules apply to; the remaining candidates follow in
            the order of their scores. None: all positions.

    Returns:
        int64 [B, C]; [b, s] is the candidate at position s of request b.

    Raises:
        ValueError: a shape differs from that of `score`, a score is NaN, a key is not a signed
            integer, or `top` is negative.
    """
    score_BC, valid_BC = _checked(score, valid)
    top = score_BC.shape[1] if top is None else top
    if top < 0:
        raise ValueError(f"top={top} must be >= 0, the number of leading positions")
    # By score, padding last.
    by_score_BC = np.lexsort((-score_BC, ~valid_BC), axis=1)
    keys = [np.take_along_axis(_key(rule, score_BC), by_score_BC, 1) for rule in rules]
    requests, candidates = score_BC.shape
    row_B = np.arange(requests)
    taken_BC = np.zeros(score_BC.shape, bool)
    last = [np.full(score_BC.shape, -np.inf) for _ in rules]  # last position of each key
    padding_BC = ~np.take_along_axis(valid_BC, by_score_BC, 1)
    chosen = []
    for position in range(min(top, candidates)):
        # Bits of the cost, from the highest: taken, padding, and each rule from the first.
        cost_BC = taken_BC * 2.0 + padding_BC
        for rule, last_BC in zip(rules, last, strict=True):
            cost_BC = 2.0 * cost_BC + (position - last_BC <= rule.between)
        choice_B = cost_BC.argmin(1)  # the first of equals has the highest score
        taken_BC[row_B, choice_B] = True
        for key_BC, last_BC in zip(keys, last, strict=True):
            key_B1 = key_BC[row_B, choice_B][:, None]
            last_BC[(key_BC == key_B1) & (key_B1 >= 0)] = position
        chosen.append(choice_B)
    rest = np.nonzero(~taken_BC)[1].reshape(requests, candidates - len(chosen))
    return np.take_along_axis(by_score_BC, np.column_stack([*chosen, rest]), 1)


def _checked(
    score: ArrayLike, valid: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return scores and the mask of candidates as arrays of equal shape."""
    score_BC = np.asarray(score, np.float64)
    if score_BC.ndim != 2:
        raise ValueError(f"score has shape {score_BC.shape}; give [requests, candidates]")
    valid_BC = np.ones(score_BC.shape, bool) if valid is None else np.asarray(valid, bool)
    if valid_BC.shape != score_BC.shape:
        raise ValueError(
            f"valid has shape {valid_BC.shape}, score {score_BC.shape}; make them equal"
        )
    wrong = np.argwhere(np.isnan(score_BC) & valid_BC)
    if len(wrong):
        raise ValueError(
            f"score[{wrong[0][0]}, {wrong[0][1]}]=nan cannot be ranked; score every item"
        )
    return score_BC, valid_BC


def _key(rule: GapRule, score_BC: NDArray[np.float64]) -> Ints:
    key_BC = np.asarray(rule.key)
    if key_BC.shape != score_BC.shape:
        raise ValueError(
            f"a rule's key has shape {key_BC.shape}, score {score_BC.shape}; make them equal"
        )
    if key_BC.dtype.kind != "i":
        raise ValueError(f"a rule's key has type {key_BC.dtype}; give signed integers")
    return key_BC.astype(np.int64)
