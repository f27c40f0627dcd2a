"""One block of members of the synthetic world: the items that are shown, and the responses.

Every impression has a utility u, and each action is drawn with its probability given u,
independently of the other actions (`ligr_jax.data.world.response`). With main topic k, second topic
k' and weight w of item i by actor a, shown to member m at time t, the utility of the item alone is

    w taste(m, k, t) + (1 - w) taste(m, k', t) + affinity(m, a) + type taste and appeal
    + quality + freshness / (1 + age / freshness_hours) + surface appeal + bias(m)
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ligr_jax.data.world.arithmetic import Floats, Ints, exp, stream
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
    Members,
    Visits,
    draw_members,
    draw_visits,
    personal_topics,
)
from ligr_jax.data.world.response import BlockResponse

FRESH_DAYS = (2, 10, 36_500)  # largest age of an item in a popular or personal choice, in days
CANDIDATES = 5  # candidates of a personal choice
AFFINITY_SHARE = 0.7  # share of personal choices by affinity; the others take the first candidate
DWELL_LOCATION, DWELL_UTILITY, DWELL_LONG, DWELL_SIGMA = 0.8, 0.35, 1.3, 0.7  # log seconds

Flags = NDArray[np.bool_]


def block_table(config: WorldConfig, number: int) -> pa.Table:
    """Return block `number` of the log, ordered by member and time.

    The block is a pure function of the arguments.
    """
    catalog = build_catalog(config)
    rng, members, visits, item, random = _choices(config, catalog, number)
    response = _response(config, catalog, members, visits, item)
    position = np.arange(len(item)) - np.searchsorted(visits.session, visits.session)
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
    return pa.table(columns | _outcomes(rng, response))


def block_response(config: WorldConfig, number: int) -> BlockResponse:
    """Return the true responses to the items of block `number`, for slates that were not shown.

    Row numbers are those of `block_table`.
    """
    catalog = build_catalog(config)
    _, members, visits, item, _ = _choices(config, catalog, number)
    return _response(config, catalog, members, visits, item)


def _choices(
    config: WorldConfig, catalog: Catalog, number: int
) -> tuple[np.random.Generator, Members, Visits, Ints, Flags]:
    """Draw what is shown in a block.

    Returns:
        The generator, which the responses are drawn from; members; visits; the item of each visit,
        int64 [N]; and whether it was chosen uniformly at random, bool [N].
    """
    rng = stream(config.seed, FIRST_BLOCK_STREAM + number)
    first = number * config.block_members
    members = draw_members(rng, config, first, catalog.topic_zipf)
    visits = draw_visits(rng, config, members)
    item, random = choose_items(rng, config, catalog, members, visits)
    once = ~_repeated(visits.session * config.items + item)
    return rng, members, visits.keep(once), item[once], random[once]


def _response(
    config: WorldConfig, catalog: Catalog, members: Members, visits: Visits, item: Ints
) -> BlockResponse:
    affinity = config.planted.affinity * members.affinity(visits.member, catalog.actor[item])
    return BlockResponse(
        planted=config.planted,
        session=visits.session,
        topic=catalog.topic[item],
        actor=catalog.actor[item],
        kind=catalog.kind[item],
        quality=catalog.quality[item],
        affinity=affinity,
        alone=_appeal(config, catalog, members, visits, item) + affinity,
    )


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


def _outcomes(rng: np.random.Generator, response: BlockResponse) -> dict[str, NDArray[Any]]:
    """Return labels, dwell times and true probabilities of all rows, by column name."""
    rows = np.arange(len(response.session))
    u = response.utility(rows, response.session)
    truth = response.given_utility(rows, u)
    labels = {a.name: (rng.random(len(u)) < truth[a.name]).astype(np.int8) for a in ACTIONS}
    labels["contribution"] = np.bitwise_or.reduce([labels[name] for name in CONTRIBUTIONS])
    location = DWELL_LOCATION + DWELL_UTILITY * u + DWELL_LONG * labels["long_dwell"]
    dwell = exp(location + DWELL_SIGMA * rng.standard_normal(len(u)))
    probabilities = {f"p_{name}": p for name, p in truth.items()}
    return labels | {"dwell_s": np.round(dwell, 2).astype(np.float32)} | probabilities


def _repeated(keys: Ints) -> Flags:
    """Return whether the same key occurs in an earlier row, bool [N]."""
    order = np.argsort(keys, kind="stable")
    repeated = np.zeros(len(keys), bool)
    repeated[order[1:]] = keys[order[1:]] == keys[order[:-1]]
    return repeated


def _names(names: tuple[str, ...], codes: Ints) -> pa.Array:
    return pa.array(names).take(pa.array(codes))
