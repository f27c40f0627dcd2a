"""The canonical impression log: one row per impression, shown-and-ignored rows included.

Every source is an adapter to this contract, and whatever wrote a log (Spark, BigQuery, polars) only
has to write these columns as Parquet or CSV:

    member_id      int64 or string   who saw it
    timestamp_ms   int64             when (UTC)
    session_id     int64, optional   derived by a time gap when absent
    weight         float32, optional importance of the row, e.g. inverse propensity
    is_random      bool, optional    shown by a random policy
    <action>       0 or 1            one column per action; an action a source lacks is absent
    p_<action>     float, optional   the action's true probability (synthetic worlds only)
    <feature>      see `Column`      any number of them, declared by a `LogSchema`

Actions and features may have any name. A feature may be one of the columns above (`member_id`);
`weight` and `is_random` are then a feature alone.

A directory that holds Parquet or CSV files in this form plus `log.json` (a `LogSchema`, written by
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
UNKNOWN = -1  # label of an action nobody recorded: masked wherever it is read, never a zero


class BadInput(LigrError, ValueError):
    """Invalid user input: the message names file, row, column, value and remedy."""


@dataclass(frozen=True)
class Column:
    """One feature column of a log.

    kind: `categorical` (int64 or string), `bag` (list of such ids, of any length; order is kept),
        `numeric` (float; null and NaN mean missing) or `vector` (list of `width` floats).
    outcome: known only after the impression (dwell, play time). Outcomes feed action tokens and
        never item tokens, or the model would read its own answer.
    separator: what stands between the ids of a bag that is written as text, as in a CSV file.
    """

    kind: Kind
    outcome: bool = False
    width: int = 1
    separator: str = "|"

    def __post_init__(self) -> None:
        if not self.separator:
            raise BadInput("the separator of a bag is empty; write ids as a|b|c, or name another")


@dataclass(frozen=True)
class LogSchema:
    """What a log holds beside its reserved columns.

    actions: label columns in the order of the model's tasks.
    columns: feature columns of the log and of its item table, by name.
    truth: whether the columns `p_<action>` are present (never readable by training).
    items: file of the item table (one row per `item_id`), relative to the log's directory, or "".
    notes: what a reader of results must know about this source, printed by `prepare`.
    """

    actions: tuple[str, ...]
    columns: Mapping[str, Column] = field(default_factory=dict)
    truth: bool = False
    items: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.actions:
            raise BadInput("a log needs at least one action column (actions is empty)")
        for role, names in (("action", self.actions), ("feature", list(self.columns))):
            _check_names(role, names)
        if "item_id" in self.columns and self.columns["item_id"].kind == "bag":
            raise BadInput("item_id is a bag; an impression is of one item: name the bag otherwise")


def _check_names(role: str, names: Sequence[str]) -> None:
    """Refuse names that cannot be typed or shown, or that differ from others in spaces alone."""
    stripped = [name.strip() for name in names]
    for name, bare in zip(names, stripped):
        if not bare:
            raise BadInput(f"{role} {name!r}: the name is empty; rename the column")
        if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name):
            raise BadInput(f"{role} {name!r}: the name has control characters; rename the column")
        if stripped.count(bare) > 1:
            raise BadInput(
                f"{role} {name!r}: the name is there twice, spaces at its ends aside; rename one"
            )


def save_schema(schema: LogSchema, directory: Path) -> None:
    """Writes `schema` as DIRECTORY/log.json."""
    text = json.dumps(dataclasses.asdict(schema), indent=1)
    write_atomically(directory / "log.json", text + "\n")


def load_schema(directory: Path) -> LogSchema:
    """Reads DIRECTORY/log.json; raises `BadInput` where it is not a log schema."""
    path = directory / "log.json"
    try:
        raw: dict[str, Any] = json.loads(read_text(path))
        raw["columns"] = {k: Column(**v) for k, v in raw["columns"].items()}
        for name in ("actions", "notes"):
            raw[name] = tuple(raw[name])
        return LogSchema(**raw)
    except (KeyError, TypeError, json.JSONDecodeError) as e:
        raise BadInput(f"{path}: not a log schema ({e}); write it with save_schema") from e
