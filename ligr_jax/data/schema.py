"""The canonical impression log: one row per impression, including impressions without an action.

Every source is an adapter to this schema. A system that writes a log (Spark, BigQuery, polars)
writes these columns as Parquet or CSV:

    member_id      int64 or string   the member who saw the item
    timestamp_ms   int64             time of the impression (UTC)
    session_id     int64, optional   if absent, sessions are derived from gaps in time
    weight         float32, optional weight of the row in the loss, e.g. inverse propensity
    is_random      bool, optional    whether a random policy chose the item
    <action>       0 or 1            one column per recorded action
    p_<action>     float, optional   true probability of the action (synthetic worlds only)
    <feature>      see `Column`      any number of columns, declared by a `LogSchema`

Actions and features may have any name. One of the columns above may also be a feature, e.g.
`member_id`. A feature `weight` or `is_random` is only a feature and loses its meaning above.

A directory with Parquet or CSV files of this form and `log.json` (a `LogSchema`, written by
`save_schema`) is a complete canonical log.
"""

import dataclasses
import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ligr_jax.atomic import read_text, write_atomically
from ligr_jax.errors import LigrError

Kind = Literal["categorical", "bag", "numeric", "vector"]

MEMBER, TIME, SESSION, WEIGHT, RANDOM = (
    "member_id",
    "timestamp_ms",
    "session_id",
    "weight",
    "is_random",
)
RESERVED = (MEMBER, TIME, SESSION, WEIGHT, RANDOM)
BAG_SEPARATOR = "|"  # default text between the elements of a list that is stored as text
UNKNOWN = -1  # label of an action that was not recorded; losses and metrics mask it


class BadInput(LigrError, ValueError):
    """Invalid user input. The message names file, row, column, value and remedy."""


@dataclass(frozen=True)
class Column:
    """One feature column of a log.

    Attributes:
        kind: `categorical` (int64 or string), `bag` (list of such ids, of any length and in order),
            `numeric` (float; null and NaN mean missing) or `vector` (list of `width` floats).
        outcome: whether the value is known only after the impression (dwell time, play time).
            Outcomes are inputs of action tokens and never of item tokens, because they leak labels.
        width: length of a vector.
        separator: text between the ids of a bag that is stored as text, as in a CSV file.
    """

    kind: Kind
    outcome: bool = False
    width: int = 1
    separator: str = BAG_SEPARATOR

    def __post_init__(self) -> None:
        if not self.separator:
            raise BadInput("the separator of a bag is empty; choose a character, e.g. | for a|b|c")


@dataclass(frozen=True)
class LogSchema:
    """Actions and features of a log.

    Attributes:
        actions: label columns, in the order of the model's tasks.
        columns: feature columns of the log and of its item table, by name.
        truth: whether the log has columns `p_<action>`, which training cannot read.
        items: file of the item table (one row per `item_id`), relative to the log's directory, or
            "".
        notes: what a reader of results must know about this source; `prepare` prints it.
        late_actions: actions whose labels become known at an unknown later time, such as a purchase
            days after the impression. They are targets and never inputs of action tokens.
        time_is_order: whether `timestamp_ms` has no times and only orders the rows of a member. The
            splits are then parts of each member's history, and no gap or hour is computed.

    Raises:
        BadInput: there is no action, a late action is not an action, or a name is not usable.
    """

    actions: tuple[str, ...]
    columns: Mapping[str, Column] = field(default_factory=dict)
    truth: bool = False
    items: str = ""
    notes: tuple[str, ...] = ()
    late_actions: tuple[str, ...] = ()
    time_is_order: bool = False

    def __post_init__(self) -> None:
        if not self.actions:
            raise BadInput("a log needs at least one action column (actions is empty)")
        for role, names in (("action", self.actions), ("feature", list(self.columns))):
            _check_names(role, names)
        other = [name for name in self.late_actions if name not in self.actions]
        if other:
            raise BadInput(
                f"late_actions has {other}, and the actions are {list(self.actions)}; name actions"
            )
        if "item_id" in self.columns and self.columns["item_id"].kind == "bag":
            raise BadInput("item_id is a bag, but an impression has one item; rename the bag")


def _check_names(role: str, names: Sequence[str]) -> None:
    """Raise for empty names, control characters, and names that differ only in outer spaces."""
    all_stripped = [name.strip() for name in names]
    for name, stripped in zip(names, all_stripped):
        if not stripped:
            raise BadInput(f"{role} {name!r}: the name is empty; rename the column")
        if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name):
            raise BadInput(f"{role} {name!r}: the name has control characters; rename the column")
        if all_stripped.count(stripped) > 1:
            raise BadInput(
                f"{role} {name!r}: two columns have this name, apart from outer spaces; rename one"
            )


def save_schema(schema: LogSchema, directory: Path) -> None:
    """Write a schema to DIRECTORY/log.json."""
    raw = dataclasses.asdict(schema)
    for name in ("late_actions", "time_is_order"):
        if not raw[name]:
            del raw[name]  # absent, so that digests of earlier logs do not change
    text = json.dumps(raw, indent=1)
    write_atomically(directory / "log.json", text + "\n")


def load_schema(directory: Path) -> LogSchema:
    """Read a schema from DIRECTORY/log.json.

    Args:
        directory: directory of a log.

    Raises:
        BadInput: the file is not a log schema.
    """
    path = directory / "log.json"
    try:
        raw: dict[str, Any] = json.loads(read_text(path))
        raw["columns"] = {k: Column(**v) for k, v in raw["columns"].items()}
        raw.setdefault("late_actions", [])
        for name in ("actions", "notes", "late_actions"):
            raw[name] = tuple(raw[name])
        return LogSchema(**raw)
    except (KeyError, TypeError, json.JSONDecodeError) as e:
        raise BadInput(f"{path}: not a log schema ({e}); write it with save_schema") from e
