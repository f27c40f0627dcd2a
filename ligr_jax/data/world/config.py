"""Configuration of the synthetic world, and its planted effects."""

from dataclasses import dataclass, field, fields
from typing import Any

from ligr_jax.data.schema import BadInput

VERSION = 1  # version of the generator; equal versions and configurations give equal bytes
START_MS = 1_767_225_600_000  # 2026-01-01 00:00 UTC, the first day of every world
SECOND, HOUR, DAY = 1_000, 3_600_000, 86_400_000  # in ms
MIN_GAP_MS = 31 * 60 * SECOND  # between sessions; `prepare` separates sessions at 30 min

ITEM_TYPES = ("text", "image", "video", "article", "poll")
SURFACES = ("feed", "notification", "search")
SURFACE_SHARES = (0.7, 0.15, 0.15)
SEARCH = SURFACES.index("search")


@dataclass(frozen=True)
class Action:
    """An action with logit(p) = intercept + slope u + affinity a + quality q + by_type[item type].

    u is the utility of the impression, a the affinity of the member to the actor, and q the quality
    of the item.
    """

    name: str
    intercept: float
    slope: float
    affinity: float = 0.0
    quality: float = 0.0
    by_type: tuple[float, ...] = (0.0,) * len(ITEM_TYPES)


ACTIONS = (
    Action("click", -1.88, 1.0),
    Action("long_dwell", -2.7, 0.9, by_type=(-0.4, -0.5, 0.7, 0.5, -0.3)),
    Action("like", -4.3, 0.85, affinity=0.5),
    Action("comment", -5.87, 0.8, quality=0.5, by_type=(0.4, 0.0, -0.3, 0.0, 0.6)),
    Action("share", -6.69, 0.9, quality=0.3, by_type=(-0.2, 0.1, 0.3, 0.4, -0.6)),
)
CONTRIBUTIONS = ("like", "comment", "share")  # a contribution is at least one of these actions
LABELS = (*(a.name for a in ACTIONS), "contribution")


@dataclass(frozen=True)
class Planted:
    """Effects planted in the utility u, in units of the click logit.

    Values are standard deviations over the population unless their comment says otherwise.
    """

    parent_interest: float = 0.75  # member x parent topic, long-lived
    leaf_interest: float = 0.75  # member x leaf topic, long-lived
    drift: float = 0.55  # amplitude of the slow wave of each parent and leaf topic
    drift_days: tuple[float, float] = (10.0, 50.0)  # shortest and longest period
    affinity: float = 0.6  # member x actor
    type_taste: float = 0.45  # member x item type
    type_appeal: tuple[float, ...] = (-0.15, 0.05, 0.25, 0.0, -0.2)
    surface_appeal: tuple[float, ...] = (0.0, -0.2, 0.3)
    quality: float = 0.5
    freshness: float = 0.5  # effect of a new item; half of it remains after freshness_hours
    freshness_hours: float = 24.0
    bias: float = 0.45  # general engagement of a member
    topic_satiation: float = 1.5  # limit for many items of the same leaf topic in the session
    actor_satiation: float = 1.2  # limit for many items of the same actor in the session
    satiation_half: float = 2.0  # number of other items at which half of the limit is reached
    satiation_later: float = 1.0  # weight of later items in that number; 0: only earlier ones count
    position: float = 0.15  # times log(1 + position in the session)


@dataclass(frozen=True)
class WorldConfig:
    """Configuration of a world. Equal configurations give equal bytes.

    Attributes:
        members, items: number of members and items.
        seed: random seed in [0, 2^63).
        days: length of the log in days, from `START_MS`.
        sessions: mean number of sessions of a member who is present on all days, with a log-normal
            distribution. A session has about 8 impressions.
        parents, leaves: number of parent topics, and of leaf topics of each parent.
        items_per_actor: mean number of items of an actor; the numbers have a Zipf distribution.
        content_width: length of the content vector.
        random_share, popular_share: shares of impressions chosen uniformly at random and by
            popularity; the other impressions are personal choices.
        block_members: number of members of a file, which determines the memory of a worker: below
            0.5 GB for the default values, and proportional to `sessions`.
        planted: effects on the utility; 0 removes an effect.

    Raises:
        BadInput: a value is out of range.
    """

    members: int = 10_000
    seed: int = 0
    items: int = 20_000
    days: int = 60
    sessions: float = 24.0
    parents: int = 12
    leaves: int = 8
    items_per_actor: int = 40
    content_width: int = 32
    random_share: float = 0.10
    popular_share: float = 0.30
    block_members: int = 2_048
    planted: Planted = field(default_factory=Planted)

    def __post_init__(self) -> None:
        for name, low, high in (
            ("members", 1, 2**40),
            ("seed", 0, 2**63 - 1),
            ("days", 1, 3_650),
            ("parents", 2, 256),
            ("leaves", 2, 64),
            ("items_per_actor", 1, 2**20),
            ("content_width", 1, 4_096),
            ("block_members", 1, 2**16),
        ):
            _check(name, getattr(self, name), low, high, whole=True)
        most = (2**31 - 1) // self.content_width  # offsets of the content lists are int32
        _check("items", self.items, 4 * self.topics, most, whole=True)
        _check("sessions", self.sessions, 1.0, 10.0 * self.days)
        _check("random_share", self.random_share, 0.0, 1.0)
        _check("popular_share", self.popular_share, 0.0, round(1.0 - self.random_share, 9))
        _check_planted(self.planted)

    @property
    def topics(self) -> int:
        """Number of leaf topics; leaf k belongs to parent k // leaves."""
        return self.parents * self.leaves

    @property
    def actors(self) -> int:
        """Number of actors."""
        return -(-self.items // self.items_per_actor)

    @property
    def blocks(self) -> int:
        """Number of files of the log."""
        return -(-self.members // self.block_members)

    @property
    def end_ms(self) -> int:
        """End of the log, milliseconds since 1970: all sessions start earlier."""
        return START_MS + self.days * DAY


def _check(name: str, value: Any, low: float, high: float, whole: bool = False) -> None:
    """Raise `BadInput` for a value outside [low, high]."""
    kind = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
        what = "a whole number" if whole else "a number"
        raise BadInput(f"world.{name}={value!r}; give {what} from {low} to {high}")


def _check_planted(planted: Planted) -> None:
    """Raise `BadInput` for a planted effect that is out of range."""
    lengths = {"drift_days": 2, "type_appeal": len(ITEM_TYPES), "surface_appeal": len(SURFACES)}
    for entry in fields(planted):
        value = getattr(planted, entry.name)
        if entry.name not in lengths:
            _check(f"planted.{entry.name}", value, 0.0, 1e6)
        elif not isinstance(value, tuple) or len(value) != lengths[entry.name]:
            raise BadInput(
                f"world.planted.{entry.name}={value!r}; give a tuple of {lengths[entry.name]}"
            )
        else:
            for number in value:
                _check(f"planted.{entry.name}", number, -1e6, 1e6)
    shortest, longest = planted.drift_days
    if not 0 < shortest <= longest:
        raise BadInput(
            f"world.planted.drift_days={planted.drift_days}; give (shortest, longest), both > 0"
        )
    for name in ("freshness_hours", "satiation_half"):
        if getattr(planted, name) <= 0:
            raise BadInput(f"world.planted.{name}={getattr(planted, name)}; give a number > 0")
