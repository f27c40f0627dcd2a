"""Offline replay: estimate the reward of a new ranking from traffic in random order.

In every slate whose order was uniformly random, the new model selects the item to show first. If
the log shows the same item first, the log contains the reward of the selection (LiRank 5.2; Li et
al. 2011):

    contribution rate = matched impressions at 1 with a contribution / matched impressions at 1

A slate of k items matches by chance with probability 1 / k, so a match has weight k; if all slates
have the same length, this is the ratio above. With an order that is not random, the estimate favors
models that rank like the model that produced the log.

Where items of a slate change the response to each other, the first item alone does not determine
the reward. `replay_slates` then matches all items that were shown, in their order.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from ligr_jax.ops.segments import segments

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Replay(NamedTuple):
    """The result of a replay.

    rate: the estimated reward per slate, in 0..1.
    low, high: the confidence interval of the rate.
    matched: number of matched slates.
    slates: number of all slates.
    effective: number of independent matches that would give an interval of the same width.
    """

    rate: float
    low: float
    high: float
    matched: int
    slates: int
    effective: float


class RandomSlates(NamedTuple):
    """Impressions in random order.

    rows: int64 [n], row numbers in the log.
    slate: int64 [n], slate numbers from 0.
    position: int64 [n], positions in the slate; 0 was shown first.
    """

    rows: Ints
    slate: Ints
    position: Ints


def random_slates(
    member: ArrayLike, session: ArrayLike, time: ArrayLike, is_random: ArrayLike
) -> RandomSlates:
    """Build slates from single impressions whose items were chosen at random, as in KuaiRand.

    The random impressions of one session form a slate. Their items come from one pool, so all their
    orders were equally likely. A session with a single random impression gives no slate, since
    every model would select its item. The synthetic world has such impressions too.

    Args:
        member: int [N], the member of each impression.
        session: int [N], the member's session of each impression.
        time: [N], when the item was shown.
        is_random: [N]; 1 if the item was chosen uniformly at random.
    """
    random = np.flatnonzero(np.asarray(is_random) == 1)
    member, session, time = (np.asarray(x)[random] for x in (member, session, time))
    order = np.lexsort((time, session, member))  # stable: ties keep the order of the log
    rows, member, session = random[order], member[order], session[order]
    first, size = segments(member, session)
    position = np.arange(len(rows)) - np.repeat(first, size)
    kept = np.repeat(size > 1, size)
    slate = np.repeat(np.cumsum(size > 1) - 1, size)
    return RandomSlates(rows=rows[kept], slate=slate[kept], position=position[kept])


def replay(
    score: ArrayLike,
    slate: ArrayLike,
    position: ArrayLike,
    reward: ArrayLike,
    member: ArrayLike,
    confidence: float = 0.95,
) -> Replay:
    """Estimate the reward at the first position of random slates, if ranked by `score`.

    Items that tie for the top share the selection; breaking ties by the log's order would always
    match. The interval is Wilson's, for an effective number of matches rate (1 - rate) / variance.
    The variance of the ratio is computed between members, because slates of one member are
    correlated (Kott and Carr 1997). If slates have the same length and each match is of another
    member, this is the usual Wilson interval.

    Args:
        score: float [N], of the new model; the highest is ranked first.
        slate: [N], slate numbers.
        position: [N], where the log showed the item; the lowest of a slate is its first position.
        reward: [N]; 0 or 1.
        member: [N], the member that saw the slate.
        confidence: coverage of the interval.

    Raises:
        ValueError: no slate matches, a reward is neither 0 nor 1, or a score is NaN.
    """
    score = np.asarray(score, np.float64)
    reward = np.asarray(reward, np.float64)
    _require_binary(reward)
    wrong = np.flatnonzero(np.isnan(score))
    if len(wrong):
        raise ValueError(f"score[{wrong[0]}]=nan cannot be ranked; score every item")

    # Ties for the top of each slate, and the item that the log shows first.
    _, group = np.unique(np.asarray(slate), return_inverse=True)
    size = np.bincount(group)
    best = np.full(len(size), -np.inf)
    np.maximum.at(best, group, score)
    top = score == best[group]
    tied = np.bincount(group, top)
    order = np.lexsort((np.asarray(position), group))
    shown_first = order[np.cumsum(size) - size]
    matched = shown_first[top[shown_first]]
    if not len(matched):
        raise ValueError(
            f"none of {len(size)} slates shows first what the model ranks first; use a log with "
            "more random traffic"
        )

    # The probability of a match is 1 / size; a selection among ties matches in part.
    weight = size[group[matched]] / tied[group[matched]]
    return _estimate(reward[matched], weight, np.asarray(member)[matched], len(size), confidence)


def replay_slates(
    shown: ArrayLike,
    selected: ArrayLike,
    candidates: ArrayLike,
    reward: ArrayLike,
    member: ArrayLike,
    confidence: float = 0.95,
) -> Replay:
    """Estimate the reward of whole slates of M items, if a policy selected and ordered them.

    Every slate shows M of its n candidates, and all n! / (n - M)! orders were equally likely, so
    this is the weight of a match.

    Args:
        shown: int [S, M], items of each slate in the order shown.
        selected: int [S, M], items that the policy would show, in order.
        candidates: int [S], n.
        reward: [S]; 0 or 1, of the slate.
        member: [S], the member that saw the slate.
        confidence: coverage of the interval.

    Raises:
        ValueError: no slate matches, a reward is neither 0 nor 1, a slate shows more items than it
            has candidates, or the shapes of `shown` and `selected` differ.
    """
    shown_SM, selected_SM = np.asarray(shown), np.asarray(selected)
    if shown_SM.ndim != 2 or shown_SM.shape != selected_SM.shape:
        raise ValueError(
            f"shown has shape {shown_SM.shape}, selected {selected_SM.shape}; give [slates, items]"
        )
    reward_S, count_S = np.asarray(reward, np.float64), np.asarray(candidates, np.float64)
    _require_binary(reward_S)
    length = shown_SM.shape[1]
    few = np.flatnonzero(count_S < length)
    if len(few):
        raise ValueError(
            f"candidates[{few[0]}]={count_S[few[0]]:.0f}, but a slate shows {length} items"
        )
    matched = np.flatnonzero((shown_SM == selected_SM).all(1))
    if not len(matched):
        raise ValueError(
            f"none of {len(shown_SM)} slates shows what the policy selects; use a log with more "
            "random traffic, or shorter slates"
        )
    weight = np.prod([count_S[matched] - m for m in range(length)], axis=0)
    return _estimate(
        reward_S[matched], weight, np.asarray(member)[matched], len(shown_SM), confidence
    )


def wilson(rate: float, trials: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's confidence interval (1927) of a proportion.

    (rate + z^2 / 2n +- z sqrt(rate (1 - rate) / n + z^2 / 4n^2)) / (1 + z^2 / n)

    Args:
        rate: the observed proportion.
        trials: n, which need not be an integer.
        confidence: coverage of the interval.
    """
    z = float(norm.ppf(0.5 + confidence / 2))
    center = rate + z**2 / (2 * trials)
    half = z * np.sqrt(rate * (1 - rate) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    return max(0.0, float((center - half) / scale)), min(1.0, float((center + half) / scale))


def _require_binary(reward: Floats) -> None:
    """Raise `ValueError` for a reward that is neither 0 nor 1."""
    wrong = np.flatnonzero((reward != 0) & (reward != 1))
    if len(wrong):
        raise ValueError(
            f"reward[{wrong[0]}]={reward[wrong[0]]} is neither 0 nor 1; leave out rows without a "
            "recorded label"
        )


def _estimate(
    earned: Floats, weight: Floats, member: NDArray[Any], slates: int, confidence: float
) -> Replay:
    """Return the weighted mean of the rewards of matched slates, with its interval."""
    rate = float(np.average(earned, weights=weight))
    effective = _effective(weight, earned - rate, member, rate)
    low, high = wilson(rate, effective, confidence)
    return Replay(
        rate=rate,
        low=low,
        high=high,
        matched=len(earned),
        slates=slates,
        effective=effective,
    )


def _effective(weight: Floats, residual: Floats, member: NDArray[Any], rate: float) -> float:
    """Return the effective number of matches: rate (1 - rate) / variance between members.

    It is bounded by Kish's effective sample size (1965) of the weights, because a single member, or
    members with equal rewards, have no variance.
    """
    _, member_index = np.unique(member, return_inverse=True)
    variance = (np.bincount(member_index, weight * residual) ** 2).sum() / weight.sum() ** 2
    largest = weight.sum() ** 2 / (weight**2).sum()
    return float(min(largest, rate * (1 - rate) / variance) if variance else largest)
