"""Offline replay: what a new ranking would have earned, told by traffic in random order.

Of every slate whose order was drawn uniformly at random, the new model picks an item to stand
first. Where the log shows that very item first, the log tells what the pick earned (LiRank 5.2; Li
et al. 2011):

    contribution rate = matched impressions at 1 with a contribution / matched impressions at 1

A slate of k items matches by chance once in k, so that each match counts k times here; where all
slates are equally long, that is the ratio above. Any other order than a random one favours models
that rank like the one that made the log.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Replay(NamedTuple):
    """rate: the estimate, with the interval low .. high; matched: slates it rests on, of `slates`;
    effective: independent matches that would be as sure."""

    rate: float
    low: float
    high: float
    matched: int
    slates: int
    effective: float


class RandomSlates(NamedTuple):
    """Impressions in random order. rows: int64 [n], their places in the log; slate: int64 [n],
    counted from 0; place: int64 [n], 0 for what was shown first."""

    rows: Ints
    slate: Ints
    place: Ints


def random_slates(
    member: ArrayLike, session: ArrayLike, time: ArrayLike, is_random: ArrayLike
) -> RandomSlates:
    """Slates of a log where single impressions were chosen at random, as in KuaiRand or the
    synthetic world: those of one session.

    They are drawn from one pool, so any order of them was as likely. A session with a single one
    gives no slate: all models would pick it.

    Args, each [N]:
        member, session, time: who saw it, in which session of theirs, and when.
        is_random: 1 where the item was chosen uniformly at random.
    """
    random = np.flatnonzero(np.asarray(is_random) == 1)
    member, session, time = (np.asarray(x)[random] for x in (member, session, time))
    order = np.lexsort((time, session, member))  # stable: ties stay in the order of the log
    rows, member, session = random[order], member[order], session[order]
    changes = (member[1:] != member[:-1]) | (session[1:] != session[:-1])
    first = np.flatnonzero(np.append(np.ones(min(1, len(rows)), bool), changes))
    size = np.diff(np.append(first, len(rows)))
    place = np.arange(len(rows)) - np.repeat(first, size)
    kept = np.repeat(size > 1, size)
    slate = np.repeat(np.cumsum(size > 1) - 1, size)
    return RandomSlates(rows[kept], slate[kept], place[kept])


def replay(
    score: ArrayLike,
    slate: ArrayLike,
    place: ArrayLike,
    reward: ArrayLike,
    member: ArrayLike,
    confidence: float = 0.95,
) -> Replay:
    """The rate that ranking by `score` earns at the first place of random slates.

    Items that tie at the top share the pick: breaking ties by the log's order would match always.
    The interval is Wilson's for the effective number of matches, rate (1 - rate) / variance, the
    variance of the ratio being that over members, whose slates go together (Kott and Carr 1997). It
    is Wilson's own where slates are equally long and each match is another member's.

    Args, each [N]:
        score: of the new model; the highest stands first.
        slate: number of the slate.
        place: where the log showed the item; the lowest of a slate is its first place.
        reward: 0 or 1.
        member: who saw it.
        confidence: of the interval.

    Raises:
        ValueError: no slate matches, a reward is neither 0 nor 1, or a score is not a number.
    """
    score, reward = np.asarray(score, np.float64), np.asarray(reward, np.float64)
    wrong = np.flatnonzero((reward != 0) & (reward != 1))
    if len(wrong):
        raise ValueError(
            f"reward[{wrong[0]}]={reward[wrong[0]]}: rewards are 0 or 1; leave out rows whose "
            "label nobody recorded"
        )
    wrong = np.flatnonzero(np.isnan(score))
    if len(wrong):
        raise ValueError(f"score[{wrong[0]}]=nan: a slate with it has no first; score every item")
    _, group = np.unique(np.asarray(slate), return_inverse=True)
    size = np.bincount(group)
    best = np.full(len(size), -np.inf)
    np.maximum.at(best, group, score)
    top = score == best[group]
    tied = np.bincount(group, top)
    order = np.lexsort((np.asarray(place), group))
    shown_first = order[np.cumsum(size) - size]
    matched = shown_first[top[shown_first]]
    if not len(matched):
        raise ValueError(
            f"none of {len(size)} slates shows first what the model ranks first; bring more random "
            "traffic"
        )
    # The chance of a match is 1 / size; a pick among ties matches by a part.
    weight = size[group[matched]] / tied[group[matched]]
    earned = reward[matched]
    rate = float(np.average(earned, weights=weight))
    effective = _effective(weight, earned - rate, np.asarray(member)[matched], rate)
    low, high = wilson(rate, effective, confidence)
    return Replay(rate, low, high, len(matched), len(size), effective)


def wilson(rate: float, trials: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval (1927) of a proportion.

    (rate + z^2 / 2n +- z sqrt(rate (1 - rate) / n + z^2 / 4n^2)) / (1 + z^2 / n)

    Args:
        trials: n, which need not be whole.
    """
    z = float(norm.ppf(0.5 + confidence / 2))
    center = rate + z**2 / (2 * trials)
    half = z * np.sqrt(rate * (1 - rate) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    return max(0.0, float((center - half) / scale)), min(1.0, float((center + half) / scale))


def _effective(weight: Floats, residual: Floats, member: NDArray, rate: float) -> float:
    """rate (1 - rate) over the ratio's variance between members, and at most what the weights stand
    for: members that earn alike, or a single one, show no variance."""
    _, who = np.unique(member, return_inverse=True)
    variance = (np.bincount(who, weight * residual) ** 2).sum() / weight.sum() ** 2
    most = weight.sum() ** 2 / (weight**2).sum()  # Kish 1965
    return float(min(most, rate * (1 - rate) / variance) if variance else most)
