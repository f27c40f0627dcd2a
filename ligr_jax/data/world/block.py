"""One block of members of the synthetic world: impressions, their utilities, and the actions.

Every impression has a utility u. Each action has logit(p) = intercept + slope u + other terms (see
`Action`) and is drawn with probability p, independently given u. With main topic k, second topic
k' and weight w of item i by actor a, shown to member m at time t at position s:

    u =  w taste(m, k, t) + (1 - w) taste(m, k', t) + affinity(m, a) + type taste and appeal
       + quality + freshness / (1 + age / freshness_hours) + surface appeal + bias(m)
       - topic satiation n_k / (n_k + h) - actor satiation n_a / (n_a + h) - position log(1 + s)

n_k and n_a are the numbers of other items of the session, earlier and later, with the same main
topic and with the same actor; h is `satiation_half`. Only a model whose input is the whole session
can use these terms.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ligr_jax.data.world.arithmetic import Floats, Ints, exp, sigmoid, stream
from ligr_jax.data.world.catalog import FIRST_BLOCK_STREAM, Catalog, build_catalog
from ligr_jax.data.world.config import (
    ACTIONS,
    CONTRIBUTIONS,
    DAY,
    HOUR,
    ITEM_TYPES,
    START_MS,
    SURFACES,
    WorldConfig,
)
from ligr_jax.data.world.members import (
    LENGTH_MAX,
    Members,
    Visits,
    draw_members,
    draw_visits,
    personal_topics,
)

FRESH_DAYS = (2, 10, 36_500)  # largest age of an item in a popular or personal choice, in days
CANDIDATES = 5  # candidates of a personal choice
AFFINITY_SHARE = 0.7  # share of personal choices by affinity; the others take the first candidate
LOG_POSITION = np.round(np.log1p(np.arange(LENGTH_MAX)), 9)  # rounding makes machines agree
DWELL_LOCATION, DWELL_UTILITY, DWELL_LONG, DWELL_SIGMA = 0.8, 0.35, 1.3, 0.7  # log seconds

Flags = NDArray[np.bool_]


def block_table(config: WorldConfig, number: int) -> pa.Table:
    """Return block `number` of the log, ordered by member and time.

    The block is a pure function of the arguments.
    """
    rng = stream(config.seed, FIRST_BLOCK_STREAM + number)
    catalog = build_catalog(config)
    first = number * config.block_members
    members = draw_members(rng, config, first, catalog.topic_zipf)
    visits = draw_visits(rng, config, members)
    item, random = choose_items(rng, config, catalog, members, visits)
    once = ~_repeated(visits.session * config.items + item)
    visits, item, random = visits.keep(once), item[once], random[once]
    position = np.arange(len(item)) - np.searchsorted(visits.session, visits.session)
    affinity = config.planted.affinity * members.affinity(visits.member, catalog.actor[item])
    u = _appeal(config, catalog, members, visits, item) + affinity
    u -= _depression(config, catalog, visits, item, position)
    columns = {
        "member_id": members.member_id[visits.member],
        "session_id": visits.ordinal[visits.session],
        "timestamp_ms": visits.time,
        "item_id": catalog.item_id[item],
        "actor_id": catalog.actor_id[catalog.actor[item]],
        "item_type": _names(ITEM_TYPES, catalog.kind[item]),
        "surface": _names(SURFACES, visits.surface[visits.session]),
        "age_h": ((visits.time - catalog.created[item]) / HOUR).astype(np.float32),
        "position": position.astype(np.int16),
        "is_random": random,
    }
    quality, kind = catalog.quality[item], catalog.kind[item]
    return pa.table(columns | _outcomes(rng, u, affinity, quality, kind))


def choose_items(
    rng: np.random.Generator,
    config: WorldConfig,
    catalog: Catalog,
    members: Members,
    visits: Visits,
) -> tuple[Ints, Flags]:
    """Choose the item of every row by the logging policy.

    Rows are random, popular or personal choices. An item that the member has already seen is
    replaced by another item of its topic, except for random choices, which must stay uniform.

    Returns:
        Item number, int64 [N]; and whether the item was chosen uniformly at random, bool [N].
    """

    def affinity(rows: Ints, item: Ints) -> Floats:
        return members.affinity(visits.member[rows], catalog.actor[item])

    n = len(visits.time)
    policy, uniform, topic_uniform = rng.random(n), rng.random(n), rng.random(n)
    since = visits.time - np.array(FRESH_DAYS)[rng.integers(0, len(FRESH_DAYS), n)] * DAY
    random = policy < config.random_share
    popular = ~random & (policy < config.random_share + config.popular_share)
    item = (uniform * catalog.alive(visits.time)).astype(np.int64)
    item[popular] = catalog.popular(since[popular], visits.time[popular], uniform[popular])

    rows = np.flatnonzero(~random & ~popular)
    topic = personal_topics(config, members, visits, rows, topic_uniform)
    item[rows] = catalog.popular_of(topic, since[rows], visits.time[rows], uniform[rows])
    prefers = rng.random(len(rows)) < AFFINITY_SHARE
    for _ in range(CANDIDATES - 1):
        retry = rng.random(len(rows))
        other = catalog.popular_of(topic, since[rows], visits.time[rows], retry)
        closer = affinity(rows, other) > affinity(rows, item[rows])
        item[rows] = np.where(prefers & closer, other, item[rows])

    seen = np.flatnonzero(_repeated(visits.member * config.items + item) & ~random)
    item[seen] = catalog.any_of(catalog.topic[item[seen]], visits.time[seen], rng.random(len(seen)))
    return item, random


def _appeal(
    config: WorldConfig, catalog: Catalog, members: Members, visits: Visits, item: Ints
) -> Floats:
    """Return the utility without affinity and without the effects of the session."""
    planted, who = config.planted, visits.member
    day = (visits.time - START_MS) / DAY
    u = members.bias[who] + planted.quality * catalog.quality[item]
    main = catalog.main[item]
    for topic, share in ((catalog.topic[item], main), (catalog.second[item], 1.0 - main)):
        for node in (topic // config.leaves, config.parents + topic):
            u += share * members.taste(who, node, day, planted)
    kind = catalog.kind[item]
    u += members.type_taste[who, kind] + np.array(planted.type_appeal)[kind]
    u += np.array(planted.surface_appeal)[visits.surface[visits.session]]
    age = (visits.time - catalog.created[item]) / HOUR
    return u + planted.freshness / (1.0 + age / planted.freshness_hours)


def _depression(
    config: WorldConfig, catalog: Catalog, visits: Visits, item: Ints, position: Ints
) -> Floats:
    """Return the reduction of the utility by the other items of the session and the position."""
    planted = config.planted
    topics = _others(visits.session * config.topics + catalog.topic[item])
    actors = _others(visits.session * config.actors + catalog.actor[item])
    loss = planted.position * LOG_POSITION[position]
    loss += planted.topic_satiation * topics / (topics + planted.satiation_half)
    return loss + planted.actor_satiation * actors / (actors + planted.satiation_half)


def _outcomes(
    rng: np.random.Generator, u: Floats, affinity: Floats, quality: Floats, kind: Ints
) -> dict[str, NDArray[Any]]:
    """Return labels, true probabilities and dwell times of all rows, by column name.

    p_contribution = 1 - prod (1 - p_a) over like, comment and share, from their float32 values.
    """
    labels, truth = {}, {}
    nothing, contribution = np.ones_like(u), np.zeros(len(u), np.int8)
    for action in ACTIONS:
        logit = action.intercept + action.slope * u + np.array(action.by_type)[kind]
        logit += action.affinity * affinity + action.quality * quality
        p = sigmoid(logit).astype(np.float32)
        drawn = (rng.random(len(u)) < p).astype(np.int8)
        labels[action.name], truth[f"p_{action.name}"] = drawn, p
        if action.name in CONTRIBUTIONS:
            nothing *= 1.0 - p.astype(np.float64)
            contribution |= drawn
    labels["contribution"] = contribution
    truth["p_contribution"] = (1.0 - nothing).astype(np.float32)
    location = DWELL_LOCATION + DWELL_UTILITY * u + DWELL_LONG * labels["long_dwell"]
    dwell = exp(location + DWELL_SIGMA * rng.standard_normal(len(u)))
    return labels | {"dwell_s": np.round(dwell, 2).astype(np.float32)} | truth


def _repeated(keys: Ints) -> Flags:
    """Return whether the same key occurs in an earlier row, bool [N]."""
    order = np.argsort(keys, kind="stable")
    repeated = np.zeros(len(keys), bool)
    repeated[order[1:]] = keys[order[1:]] == keys[order[:-1]]
    return repeated


def _others(keys: Ints) -> Floats:
    """Return the number of other rows with the same key, [N]."""
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return (counts[inverse] - 1).astype(np.float64)


def _names(names: tuple[str, ...], codes: Ints) -> pa.Array:
    return pa.array(names).take(pa.array(codes))
