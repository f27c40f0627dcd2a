"""Members of one block of the synthetic world, and the times of their impressions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ligr_jax.data.world.arithmetic import (
    Floats,
    Hashes,
    Ints,
    draw,
    exp,
    from_zero,
    heavy_deviate,
    splitmix64,
    spread,
    wave,
)
from ligr_jax.data.world.config import (
    DAY,
    HOUR,
    ITEM_TYPES,
    MIN_GAP_MS,
    SEARCH,
    SECOND,
    START_MS,
    SURFACE_SHARES,
    Planted,
    WorldConfig,
)

FOUNDER_SHARE = 0.6  # share of members present on the first day; the others join uniformly
ACTIVITY_SIGMA = 1.1  # of the log-normal number of sessions; the median is 0.55 of the mean
DAILY_SESSIONS = 10  # upper bound of a member's mean number of sessions per day
LENGTH_MEDIAN, LENGTH_SIGMA, LENGTH_MAX = 5.6, 0.95, 40  # impressions of a session, log-normal
SLATE_SHARE = 1.0 / 3.0  # share of sessions with equal timestamps
PAUSE_MIN_MS, PAUSE_MEAN_MS, PAUSE_MAX_MS = 2 * SECOND, 10 * SECOND, 60 * SECOND
HOUR_WEIGHTS = (2, 1, 1, 1, 1, 2, 4, 7, 8, 7, 6, 6, 8, 7, 6, 6, 6, 7, 9, 11, 13, 12, 8, 4)
POLICY_SHARPNESS = 0.8  # inverse temperature of the personal policy's softmax over interests
POLICY_NOISE = 0.7  # standard deviation of the policy's error in the interests


@dataclass(frozen=True)
class Members:
    """Latent state of M members. Topic nodes are the parent topics followed by the leaf topics.

    Attributes:
        member_id: [M], increasing ids with gaps.
        key: [M], hashes that determine the affinities to actors.
        join_day: [M], first day.
        rate: [M], expected number of sessions.
        hour_shift: [M], shift of the daily rhythm in hours.
        bias: [M].
        type_taste: [M, types].
        interest, phase, frequency: [M, nodes]; frequency in cycles per day.
        policy: [M * leaves + 1], cumulative topic weights of the personal policy.
    """

    member_id: Ints
    key: Hashes
    join_day: Ints
    rate: Floats
    hour_shift: Ints
    bias: Floats
    type_taste: Floats
    interest: Floats
    phase: Floats
    frequency: Floats
    policy: Floats

    def taste(self, member: Ints, node: Ints, day: Floats, planted: Planted) -> Floats:
        """Return interests of members in topic nodes on given days, [N]: constant plus drift."""
        index = member * self.interest.shape[1] + node
        turn = day * self.frequency.ravel()[index] + self.phase.ravel()[index]
        result: Floats = self.interest.ravel()[index] + planted.drift * wave(turn)
        return result

    def affinity(self, member: Ints, actor: Ints) -> Floats:
        """Return the affinities to actors, [N], of variance 1, computed by a hash of each pair."""
        return heavy_deviate(splitmix64(self.key[member] ^ splitmix64(actor.astype(np.uint64))))


@dataclass(frozen=True)
class Visits:
    """Impressions of a block without items, ordered by member and time.

    Attributes:
        member: [N], number of the member in the block.
        session: [N], number of the session in the block.
        time: [N], milliseconds since 1970.
        ordinal: [sessions], number of the session of its member.
        surface: [sessions], index into `SURFACES`.
    """

    member: Ints
    session: Ints
    time: Ints
    ordinal: Ints
    surface: Ints

    def keep(self, rows: NDArray[np.bool_]) -> "Visits":
        """Return the visits of some rows."""
        return Visits(
            self.member[rows], self.session[rows], self.time[rows], self.ordinal, self.surface
        )


def draw_members(
    rng: np.random.Generator, config: WorldConfig, first: int, topic_zipf: Floats
) -> Members:
    """Draw the members from number `first` on; the last block can be smaller."""
    n = min(config.block_members, config.members - first)
    number = np.arange(first, first + n)
    nodes = config.parents + config.topics
    joined = (rng.random(n) * config.days).astype(np.int64)
    joined = np.where(rng.random(n) < FOUNDER_SHARE, 0, joined)
    present = 1.0 - joined / config.days
    activity = exp(ACTIVITY_SIGMA * rng.standard_normal(n) - 0.5 * ACTIVITY_SIGMA**2)
    interest = _interests(rng, config, n)
    slowest, fastest = 1.0 / config.planted.drift_days[1], 1.0 / config.planted.drift_days[0]
    return Members(
        member_id=(number + 1) * 1_000_003 + spread(number, config.seed, "member") % 1_000_003,
        key=splitmix64(spread(number, config.seed, "affinity").astype(np.uint64)),
        join_day=joined,
        rate=np.minimum(config.sessions * activity, DAILY_SESSIONS * config.days) * present,
        hour_shift=rng.integers(-3, 4, n),
        bias=config.planted.bias * rng.standard_normal(n),
        type_taste=config.planted.type_taste * rng.standard_normal((n, len(ITEM_TYPES))),
        interest=interest,
        phase=rng.random((n, nodes)),
        frequency=slowest + (fastest - slowest) * rng.random((n, nodes)),
        policy=_policy(rng, config, interest, topic_zipf),
    )


def draw_visits(rng: np.random.Generator, config: WorldConfig, members: Members) -> Visits:
    """Draw the sessions of every member and the times of their impressions.

    Requested start times follow a daily rhythm. A start too close to the previous session is
    delayed: with d_i the duration of session i plus `MIN_GAP_MS` and D_i = sum_{k<i} d_k,
    start_i = D_i + max_{j<=i} (request_j - D_j). Sessions that are delayed beyond the end of the
    log are dropped.
    """
    # Number of sessions, and their requested starts.
    present = config.days - members.join_day
    count = (members.rate + rng.random(len(members.rate))).astype(np.int64)
    count = np.clip(count, 1, DAILY_SESSIONS * present)
    member = np.repeat(np.arange(len(count)), count)
    request = _requested_starts(rng, members, member, present)
    # Surface, number of impressions, and pauses between impressions.
    surface = draw(rng, np.array(SURFACE_SHARES), len(member))
    raw = 1.0 + (LENGTH_MEDIAN - 0.5) * exp(LENGTH_SIGMA * rng.standard_normal(len(member)))
    length = np.minimum(raw, LENGTH_MAX).astype(np.int64)
    pause = PAUSE_MIN_MS + (PAUSE_MEAN_MS * rng.standard_exponential(length.sum())).astype(np.int64)
    pause = np.minimum(pause, PAUSE_MAX_MS)
    slate = rng.random(len(member)) < SLATE_SHARE
    session = np.repeat(np.arange(len(member)), length)
    first = np.cumsum(length) - length  # first row of each session
    pause[slate[session]] = 0
    pause[first] = 0
    # Times within a session, and delayed starts.
    elapsed = np.cumsum(pause)
    elapsed -= elapsed[first][session]
    start = _spaced(member, request, elapsed[first + length - 1] + MIN_GAP_MS)
    ordinal = np.arange(len(member)) - (np.cumsum(count) - count)[member]
    visits = Visits(member[session], session, start[session] + elapsed, ordinal, surface)
    return visits.keep((start < config.end_ms)[session])


def personal_topics(
    config: WorldConfig, members: Members, visits: Visits, rows: Ints, uniform: Floats
) -> Ints:
    """Draw the leaf topics of personal choices; all rows of a search have one topic.

    Args:
        config: configuration of the world.
        members: members of the block.
        visits: visits of the block.
        rows: rows with a personal choice.
        uniform: uniform random numbers, one per row of `visits`.
    """
    session = visits.session[rows]
    first = np.searchsorted(visits.session, session)
    source = np.where(visits.surface[session] == SEARCH, first, rows)
    low = visits.member[rows] * config.topics
    policy = members.policy
    target = policy[low] + uniform[source] * (policy[low + config.topics] - policy[low])
    topic = np.searchsorted(policy, target, side="right") - 1 - low
    result: Ints = np.clip(topic, 0, config.topics - 1)
    return result


def _interests(rng: np.random.Generator, config: WorldConfig, n: int) -> Floats:
    """Draw constant interests [n, nodes] with heavy tails.

    Interests in parent topics are N(0,1) sqrt(E), which is a Laplace distribution. Interests in
    leaf topics are N(0,1) E / sqrt(2), which has a heavier tail. E is a standard exponential. Both
    have variance 1 before scaling.
    """
    parents = rng.standard_normal((n, config.parents))
    parents *= np.sqrt(rng.standard_exponential(parents.shape))
    leaves = rng.standard_normal((n, config.topics))
    leaves *= rng.standard_exponential(leaves.shape) * np.sqrt(0.5)
    planted = config.planted
    scaled = (planted.parent_interest * parents, planted.leaf_interest * leaves)
    return np.clip(np.concatenate(scaled, axis=1), -4.0, 4.0)


def _policy(
    rng: np.random.Generator, config: WorldConfig, interest: Floats, topic_zipf: Floats
) -> Floats:
    """Return topic popularity times the softmax of noisy interests, as cumulative weights."""
    parents = np.repeat(interest[:, : config.parents], config.leaves, axis=1)
    estimate = parents + interest[:, config.parents :]
    estimate += POLICY_NOISE * rng.standard_normal(estimate.shape)
    weight = topic_zipf * exp(POLICY_SHARPNESS * estimate)
    weight /= np.cumsum(weight, axis=1)[:, -1:]  # equal totals per member keep the long sum precise
    return from_zero(weight.ravel())


def _requested_starts(
    rng: np.random.Generator, members: Members, member: Ints, present: Ints
) -> Ints:
    """Return requested start times with a daily rhythm, milliseconds, sorted within each member."""
    n = len(member)
    day = members.join_day[member] + (rng.random(n) * present[member]).astype(np.int64)
    hour = draw(rng, np.array(HOUR_WEIGHTS, np.float64), n) + members.hour_shift[member]
    request = START_MS + day * DAY + (hour % 24) * HOUR + (rng.random(n) * HOUR).astype(np.int64)
    return request[np.lexsort((request, member))]


def _spaced(member: Ints, request: Ints, occupied: Ints) -> Ints:
    """Return starts, delayed until the previous session is over (see `draw_visits`)."""
    before = np.cumsum(occupied) - occupied
    first = np.searchsorted(member, member)  # number of the first session of each session's member
    before -= before[first]
    level = member << 45  # larger than all times, so the running maximum restarts at every member
    result: Ints = np.maximum.accumulate(level + (request - before)) - level + before
    return result
