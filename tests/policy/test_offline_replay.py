"""Laws of replay on random slates: it is unbiased, and its intervals have their coverage."""

import numpy as np
import pytest
from scipy.stats import binomtest

from ligr_jax.data.world.block import block_table
from ligr_jax.data.world.config import Planted, WorldConfig
from ligr_jax.policy.offline_replay import random_slates, replay, replay_slates, wilson

Log = tuple[np.ndarray, ...]


def simulated(rng: np.random.Generator, members: int, random: bool = True) -> Log:
    """Simulate slates of 2 to 6 items, several per member.

    With `random=False`, slates are ordered by the probability of a reward instead of at random.
    Returns slate, position, probability, the score of a noisy model, reward and member.
    """
    per_member = rng.integers(1, 9, members)
    owner = np.repeat(np.arange(members), per_member)
    size = rng.integers(2, 7, len(owner))
    slate = np.repeat(np.arange(len(owner)), size)
    # A member's slates share one taste, so their rewards are correlated.
    p = 1 / (1 + np.exp(2.5 - rng.normal(size=members)[owner[slate]] - rng.normal(size=len(slate))))
    score = np.log(p / (1 - p)) + rng.normal(size=len(slate)) * 1.5
    by = rng.random(len(slate)) if random else -p
    order = np.lexsort((by, slate))
    position = np.empty(len(slate), int)
    position[order] = np.arange(len(slate)) - np.repeat(np.cumsum(size) - size, size)
    return slate, position, p, score, (rng.random(len(p)) < p).astype(int), owner[slate]


def value(slate: np.ndarray, p: np.ndarray, score: np.ndarray) -> float:
    """Return the expected reward per slate of ranking by `score`."""
    order = np.lexsort((-score, slate))
    top = order[np.append(True, np.diff(slate[order]) > 0)]
    return float(p[top].mean())


def test_interval_covers_the_true_value_with_its_nominal_frequency() -> None:
    rng, covered, gaps = np.random.default_rng(0), 0, []
    # The true value of the population, from which each log draws some members.
    slate, _, p, score, _, _ = simulated(np.random.default_rng(1), 50_000)
    truth = value(slate, p, score)
    for _ in range(200):
        slate, position, p, score, reward, member = simulated(rng, 150)
        result = replay(score, slate, position, reward, member)
        covered += result.low <= truth <= result.high
        gaps.append(result.rate - truth)
    assert binomtest(covered, 200, 0.95).pvalue > 0.001, covered
    assert abs(np.mean(gaps)) < 3 * np.std(gaps) / np.sqrt(len(gaps))


def test_a_log_that_is_not_random_gives_a_wrong_estimate() -> None:
    slate, position, p, score, reward, member = simulated(
        np.random.default_rng(2), 3000, random=False
    )
    result = replay(score, slate, position, reward, member)
    assert result.low > value(slate, p, score)


def test_replay_equals_a_count_by_hand() -> None:
    #         a slate of 2: matches; of 3: matches; of 2: does not; of 2: a tie, half a match
    slate = [0, 0, 7, 7, 7, 3, 3, 4, 4]
    position = [1, 2, 5, 4, 3, 0, 1, 0, 1]
    score = [9, 1, 0, 1, 2, 0, 1, 5, 5]
    reward = [1, 0, 0, 0, 0, 1, 1, 1, 0]
    result = replay(score, slate, position, reward, np.asarray(slate))
    assert result.rate == pytest.approx((2 * 1 + 3 * 0 + 1 * 1) / (2 + 3 + 1))
    assert (result.matched, result.slates) == (3, 4)
    with pytest.raises(ValueError, match="none of 1 slates"):
        replay([0, 1], [0, 0], [0, 1], [0, 0], [0, 0])
    with pytest.raises(ValueError, match=r"reward\[1\]=-1"):
        replay([0, 1], [0, 0], [0, 1], [0, -1], [0, 0])
    with pytest.raises(ValueError, match=r"score\[1\]=nan"):
        replay([0, np.nan], [0, 0], [0, 1], [0, 0], [0, 0])


def test_interval_is_scipys_wilson_interval_and_counts_members_not_matches() -> None:
    rng = np.random.default_rng(3)
    n = 80
    slate, position = np.repeat(np.arange(n), 2), np.tile([0, 1], n)
    reward, score = np.repeat(rng.random(n) < 0.2, 2), np.tile([1, 0], n)
    result = replay(score, slate, position, reward, slate)
    theirs = binomtest(int(reward.sum()) // 2, n).proportion_ci(0.95, method="wilson")
    assert (result.low, result.high) == pytest.approx((theirs.low, theirs.high))
    # Ten equal matches of one member give no more information than one of them.
    repeated = replay(
        np.tile(score, 10),
        np.arange(20 * n) // 2,
        np.tile(position, 10),
        np.tile(reward, 10),
        np.tile(slate, 10),
    )
    assert (repeated.low, repeated.high) == pytest.approx((result.low, result.high))
    assert wilson(0.0, 10)[0] == 0
    unrewarded = replay(score, slate, position, 0 * reward, slate)
    assert unrewarded.effective == n


def test_a_single_member_does_not_make_a_rate_certain() -> None:
    """The residuals of one member sum to zero up to rounding, which must not give zero variance."""
    slate, position, _, score, reward, member = simulated(np.random.default_rng(4), 30)
    result = replay(score, slate, position, reward, 0 * member)
    assert 0 < result.rate < 1
    assert result.effective <= result.matched
    assert result.high - result.low > 0.1


def test_replay_of_whole_slates_covers_rewards_that_depend_on_the_items_before() -> None:
    """Slates of 2 of 3 to 5 candidates; an item has no reward after a neighbour of equal parity."""
    rng, count, covered = np.random.default_rng(5), 3000, 0
    for _ in range(100):
        candidates = rng.integers(3, 6, count)
        order = np.argsort(rng.random((count, 5)) + 9 * (np.arange(5) >= candidates[:, None]))
        member, shown = rng.integers(0, 500, count), order[:, :2]
        selected = np.stack([member % 3, (member % 3 + 1 + member % 2) % 3], axis=1)

        def rate(slate: np.ndarray) -> np.ndarray:
            return np.where(slate.sum(1) % 2 == 0, 0.1, 0.4) + 0.1 * slate[:, 0]

        reward = rng.random(count) < rate(shown)
        result = replay_slates(shown, selected, candidates, reward, member)
        covered += result.low <= rate(selected).mean() <= result.high
    assert binomtest(covered, 100, 0.95).pvalue > 0.001, covered


def test_replay_of_slates_of_one_item_is_replay() -> None:
    slate, position, _, score, reward, member = simulated(np.random.default_rng(6), 200)
    order = np.lexsort((position, slate))
    first = order[np.append(True, np.diff(slate[order]) > 0)]
    best = np.lexsort((-score, slate))
    best = best[np.append(True, np.diff(slate[best]) > 0)]
    whole = replay_slates(
        first[:, None], best[:, None], np.bincount(slate), reward[first], member[first]
    )
    assert whole == pytest.approx(replay(score, slate, position, reward, member))


def test_bad_slates_are_refused() -> None:
    with pytest.raises(ValueError, match="none of 1 slates shows what"):
        replay_slates([[1, 2]], [[2, 1]], [3], [1], [0])
    with pytest.raises(ValueError, match=r"candidates\[0\]=1, but a slate shows 2"):
        replay_slates([[1, 2]], [[1, 2]], [1], [1], [0])
    with pytest.raises(ValueError, match=r"selected \(1, 1\)"):
        replay_slates([[1, 2]], [[1]], [2], [1], [0])
    with pytest.raises(ValueError, match=r"reward\[0\]=2"):
        replay_slates([[1]], [[1]], [2], [2], [0])


def test_random_slates_are_the_random_rows_of_sessions() -> None:
    member = [5, 5, 5, 5, 5, 2, 2, 2]
    session = [0, 0, 0, 1, 1, 0, 0, 0]
    time = [3, 1, 2, 9, 9, 1, 1, 4]
    is_random = [1, 0, 1, 1, 0, 1, 1, -1]
    rows, slate, position = random_slates(member, session, time, is_random)
    assert rows.tolist() == [5, 6, 2, 0]
    assert slate.tolist() == [0, 0, 1, 1]
    assert position.tolist() == [0, 1, 0, 1]


def test_replay_on_the_worlds_random_traffic_covers_the_true_value_of_policies() -> None:
    """Without position effects, the world's click probability is that of the first position."""
    planted, policies, covered = Planted(position=0.0), 10, []
    for seed in range(6):
        world = WorldConfig(
            members=400, items=2000, sessions=8, random_share=0.5, seed=seed, planted=planted
        )
        log = {k: block_table(world, 0)[k].to_numpy() for k in COLUMNS}
        rows, slate, position = random_slates(*(log[k] for k in COLUMNS[:4]))
        p, reward, member = (log[k][rows] for k in ("p_click", "click", "member_id"))
        rng = np.random.default_rng(seed)
        for noise in np.linspace(0, 4, policies):
            score = np.log(p) + noise * rng.normal(size=len(p))
            result = replay(score, slate, position, reward, member)
            covered.append(result.low <= value(slate, p, score) <= result.high)
    assert np.mean(covered) > 0.85, covered


COLUMNS = ("member_id", "session_id", "timestamp_ms", "is_random", "p_click", "click")
