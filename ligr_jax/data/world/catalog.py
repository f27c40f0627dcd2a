"""Topics, actors and items of the synthetic world, a pure function of the configuration."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ligr_jax.data.world.arithmetic import Floats, Ints, draw, from_zero, pick, spread, stream, zipf
from ligr_jax.data.world.config import DAY, ITEM_TYPES, START_MS, WorldConfig

CATALOG_STREAM, CONTENT_STREAM, FIRST_BLOCK_STREAM = 0, 1, 2  # number of each random stream
BACK_DAYS = 90  # age of the oldest item at the start, in days
OLD_SHARE = 0.5  # share of items created before the window; the others are uniform in the window
HOME_TOPICS = (0.6, 0.3, 0.1)  # shares of an actor's items in its three home topics
SIBLING_SHARE = 0.7  # items whose second topic has the same parent as the first
OWN_TYPE_SHARE = 0.6  # share of items of the actor's favourite type
TYPE_SHARES = (0.3, 0.25, 0.2, 0.18, 0.07)
CONTENT_NOISE = 0.9  # relative to 0.8 for the parent's vector and 0.6 for the leaf's
CONTENT_QUALITY = 0.5
BLOCK = 65_536


@dataclass(frozen=True)
class Catalog:
    """Items, numbered 0..n-1 by creation time, and the indices that the logging policy uses.

    Attributes:
        item_id: id of each item.
        actor_id: id of each actor.
        topic, second: leaf topics, with the weights `main` and 1 - `main`.
        main: weight of `topic`.
        actor: number of the actor.
        kind: index into `ITEM_TYPES`.
        quality: approximately N(0, 1).
        created: creation time, milliseconds since 1970.
        popularity: cumulative weights in item order (see `from_zero`).
        by_topic: item numbers sorted by topic and creation time.
        topic_keys: sorted keys of `by_topic` (see `topic_time_key`).
        topic_start: first position of each topic in `by_topic`.
        topic_popularity: cumulative weights in the order of `by_topic`.
        topic_zipf: popularity of the leaf topics.
    """

    item_id: Ints
    actor_id: Ints
    topic: Ints
    second: Ints
    main: Floats
    actor: Ints
    kind: Ints
    quality: Floats
    created: Ints
    popularity: Floats
    by_topic: Ints
    topic_keys: Ints
    topic_start: Ints
    topic_popularity: Floats
    topic_zipf: Floats

    def alive(self, time: Ints) -> Ints:
        """Return the number of items that exist at each time; these are items 0..alive-1."""
        return np.searchsorted(self.created, time, side="right")

    def popular(self, since: Ints, time: Ints, uniform: Floats) -> Ints:
        """Draw items created in (since, time] by popularity, or older items if there are none."""
        high, low = self.alive(time), self.alive(since)
        return pick(self.popularity, np.where(low < high, low, 0), high, uniform)

    def popular_of(self, topic: Ints, since: Ints, time: Ints, uniform: Floats) -> Ints:
        """Draw items as `popular` does, among the items of each topic."""
        high = np.searchsorted(self.topic_keys, topic_time_key(topic, time), side="right")
        low = np.searchsorted(self.topic_keys, topic_time_key(topic, since), side="right")
        low = np.where(low < high, low, self.topic_start[topic])
        return self.by_topic[pick(self.topic_popularity, low, high, uniform)]

    def any_of(self, topic: Ints, time: Ints, uniform: Floats) -> Ints:
        """Draw uniformly among the items of each topic that exist at each time."""
        low = self.topic_start[topic]
        high = np.searchsorted(self.topic_keys, topic_time_key(topic, time), side="right")
        return self.by_topic[low + (uniform * (high - low)).astype(np.int64)]


def topic_time_key(topic: Ints, time: Ints) -> Ints:
    """Return a sortable integer for topic and time; times are clipped to the oldest item."""
    return (topic << 42) + np.maximum(time - (START_MS - BACK_DAYS * DAY), 0)


@lru_cache(maxsize=1)
def build_catalog(config: WorldConfig) -> Catalog:
    """Return all items of a world. Every leaf topic has an item before the first day."""
    rng = stream(config.seed, CATALOG_STREAM)
    n, topics = config.items, config.topics
    topic_zipf = zipf(topics)[rng.permutation(topics)]
    created = np.sort(_created(rng, config))
    actor = draw(rng, zipf(config.actors), n)
    topic, second = _topics(rng, config, topic_zipf, actor)
    favourite = draw(rng, np.array(TYPE_SHARES), config.actors)
    own_type = rng.random(n) < OWN_TYPE_SHARE
    kind = np.where(own_type, favourite[actor], draw(rng, np.array(TYPE_SHARES), n))
    quality = 0.6 * rng.standard_normal(config.actors)[actor] + 0.8 * rng.standard_normal(n)
    rank = np.argsort(np.argsort(-(0.5 * quality + rng.standard_normal(n)), kind="stable"))
    weight = zipf(n)[rank]
    by_topic = np.argsort(topic, kind="stable")  # items are already in order of creation
    return Catalog(
        item_id=spread(np.arange(n), config.seed, "item"),
        actor_id=spread(np.arange(config.actors), config.seed, "actor"),
        topic=topic,
        second=second,
        main=0.6 + 0.4 * rng.random(n),
        actor=actor,
        kind=kind,
        quality=quality,
        created=created,
        popularity=from_zero(weight),
        by_topic=by_topic,
        topic_keys=topic_time_key(topic[by_topic], created[by_topic]),
        topic_start=np.searchsorted(topic[by_topic], np.arange(topics)),
        topic_popularity=from_zero(weight[by_topic]),
        topic_zipf=topic_zipf,
    )


def item_tables(config: WorldConfig, rows: int) -> Iterator[pa.Table]:
    """Yield the item table, `rows` items at a time: ids, type, creation time, content and truth.

    The columns `true_*` are for the analysis of results and are not in the schema of the log.
    """
    catalog = build_catalog(config)
    content = _content(config, catalog, rows)
    for first in range(0, config.items, rows):
        part, vectors = slice(first, first + rows), next(content)
        yield pa.table(
            {
                "item_id": catalog.item_id[part],
                "actor_id": catalog.actor_id[catalog.actor[part]],
                "item_type": pa.array(ITEM_TYPES).take(pa.array(catalog.kind[part])),
                "created_ms": catalog.created[part],
                "content": pa.ListArray.from_arrays(
                    np.arange(len(vectors) + 1, dtype=np.int32) * config.content_width,
                    vectors.ravel(),
                ),
                "true_topic": catalog.topic[part].astype(np.int32),
                "true_second_topic": catalog.second[part].astype(np.int32),
                "true_topic_weight": catalog.main[part].astype(np.float32),
                "true_quality": catalog.quality[part].astype(np.float32),
            }
        )


def _created(rng: np.random.Generator, config: WorldConfig) -> Ints:
    """Return creation times: half before the window, denser towards it, and half within it."""
    u = rng.random(config.items)
    old = rng.random(config.items) < OLD_SHARE
    old[: config.topics] = True
    before = START_MS - 1 - (u * u * (BACK_DAYS * DAY - 1)).astype(np.int64)
    within = START_MS + (u * (config.days * DAY)).astype(np.int64)
    return np.where(old, before, within)


def _topics(
    rng: np.random.Generator, config: WorldConfig, topic_zipf: Floats, actor: Ints
) -> tuple[Ints, Ints]:
    """Return the two leaf topics of each item: a home topic of the actor, and often a sibling."""
    n, leaves = config.items, config.leaves
    homes = draw(rng, topic_zipf, 3 * config.actors).reshape(-1, 3)
    topic = homes[actor, draw(rng, np.array(HOME_TOPICS), n)]
    topic[: config.topics] = np.arange(config.topics)  # the oldest items cover all topics
    step = rng.integers(1, leaves, n)
    sibling = topic - topic % leaves + (topic + step) % leaves
    other = draw(rng, topic_zipf, n)
    return topic, np.where(rng.random(n) < SIBLING_SHARE, sibling, other)


def _content(config: WorldConfig, catalog: Catalog, rows: int) -> Iterator[NDArray[np.float32]]:
    """Yield content vectors [rows, W]: topic vectors, a small quality term, and noise; variance 1.

    The values do not depend on `rows`.
    """
    rng = stream(config.seed, CONTENT_STREAM)
    width = config.content_width
    parents = 0.8 * rng.standard_normal((config.parents, width))
    vectors = 0.6 * rng.standard_normal((config.topics, width))
    vectors += np.repeat(parents, config.leaves, axis=0)
    hint = CONTENT_QUALITY / np.sqrt(float(width)) * np.sign(rng.standard_normal(width))
    for first in range(0, config.items, rows):
        content = np.empty((min(rows, config.items - first), width), np.float32)
        for start in range(0, len(content), BLOCK):  # limits the memory for float64
            part = slice(first + start, first + min(start + BLOCK, len(content)))
            main = catalog.main[part, None]
            x = main * vectors[catalog.topic[part]] + (1.0 - main) * vectors[catalog.second[part]]
            x += catalog.quality[part, None] * hint
            x += CONTENT_NOISE * rng.standard_normal(x.shape)
            content[start : start + BLOCK] = x / np.sqrt(1.0 + CONTENT_NOISE**2)
        yield content
