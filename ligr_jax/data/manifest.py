"""The manifest of a prepared data set: what it holds, in numbers two people can compare.

A prepared directory is

    manifest.json                     this file's `Manifest`
    members-00000-of-00004.arrow ...  Arrow IPC files (uncompressed, one record batch each)
    items.arrow                       optional: vectors, bags and semantic ids, one row per item

A record of a members file is one member. Its scalars are `member_id` (int64) and `n_context`,
`n_train`, `n_validation`, `n_test` (int32): the history in order is that many untimed context rows,
then the impressions of each split. Every other column is a list, all of a record equally long:

    timestamp_ms  int64    -1 in untimed context rows
    session       int32    counted from 0 in the member; an untimed context row is its own session
    weight        float32  1 where the log has none
    is_random     int8     0, 1, or -1 where the log does not say
    <action>      int8     0, 1, or -1 where unknown
    <categorical> int64    integers as they are, strings by xxh64 (seed 0); MISSING where null
    <bag>         large_list<int64>, such ids in the log's order, null ones dropped
    <numeric>     float32  NaN where missing
    <vector>      fixed_size_list<float32>
    item_row      int32    row of items.arrow, -1 where there is none (only with items.arrow)
    p_<action>    float32  true probability (only where the log has it)

Vectors and bags that the item table gives stand in items.arrow alone, and so do semantic ids
(`sid1` ..., int64; see `ligr_jax.data.prepare.attach`).
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ligr_jax.atomic import write_atomically
from ligr_jax.data.schema import BadInput, Kind

FORMAT_VERSION = 1
SPLITS = ("train", "validation", "test")
MISSING = -(2**63)  # a categorical id nobody recorded
QUANTILES = 33  # equally spaced, minimum and maximum included
PLACES = 64


@dataclass(frozen=True)
class ColumnStats:
    """A feature column, measured on the train split.

    distinct: number of distinct ids of the whole log (categorical, bag); exact up to 65,536, an
        estimate within about 1 % above (`exact` says which).
    missing: share of rows without a value; of a bag, without an id.
    quantiles: `QUANTILES` equally spaced quantiles of the present values (numeric).
    id_range: ids lie in 0..id_range-1, those of items to come too (categorical); 0 where they may
        be any.
    longest: most ids of a bag in the whole log.
    places: shares of a bag column's ids that come first, second, ... in their bag, up to `PLACES`.
    """

    kind: Kind
    outcome: bool = False
    width: int = 1
    distinct: int = 0
    exact: bool = True
    id_range: int = 0
    missing: float = 0.0
    quantiles: tuple[float, ...] = ()
    longest: int = 0
    places: tuple[float, ...] = ()


@dataclass(frozen=True)
class SplitStats:
    """Impressions with start_ms <= timestamp_ms < end_ms, and the share of positives per action."""

    start_ms: int
    end_ms: int
    impressions: int
    members: int
    positive_rate: Mapping[str, float]


@dataclass(frozen=True)
class Shard:
    """One file of members and the digest (xxh64, hex) of its bytes."""

    file: str
    members: int
    impressions: int
    xxh64: str


@dataclass(frozen=True)
class Manifest:
    """Everything about a prepared data set but its rows."""

    actions: tuple[str, ...]
    columns: Mapping[str, ColumnStats]
    splits: Mapping[str, SplitStats]
    shards: tuple[Shard, ...]
    counts: Mapping[str, int]  # members, impressions, context, duplicates, skipped, ...
    truth: bool = False
    items: Shard | None = None
    source: Mapping[str, Any] = field(default_factory=dict)  # the configuration that made it
    notes: tuple[str, ...] = ()
    version: int = FORMAT_VERSION

    @property
    def digest(self) -> str:
        """Twelve hex digits over the whole manifest: equal digests mean equal data."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    def to_json(self) -> str:
        raw = dataclasses.asdict(self)
        for stats in raw["columns"].values():
            if not stats["id_range"]:  # left out, so that data without one keep their digests
                del stats["id_range"]
        return json.dumps({"format": "ligr-prepared", **raw}, indent=1)


def save_manifest(manifest: Manifest, directory: Path) -> None:
    """Writes DIRECTORY/manifest.json, last: a directory with a manifest is complete."""
    write_atomically(directory / "manifest.json", manifest.to_json() + "\n")


def load_manifest(directory: Path) -> Manifest:
    """Reads DIRECTORY/manifest.json.

    Raises:
        BadInput: no manifest there, or one of another format version.
    """
    path = Path(directory) / "manifest.json"
    if not path.is_file():
        raise BadInput(
            f"{directory} holds no manifest.json; make one: `ligr prepare SOURCE --out {directory}`"
        )
    try:
        raw = json.loads(path.read_text())
    except json.JSONDecodeError as e:
        raise BadInput(f"{path}: not JSON ({e}); prepare the data again") from e
    if raw.pop("format", None) != "ligr-prepared":
        raise BadInput(f"{path}: not a manifest of prepared data; make one with `ligr prepare`")
    if raw.get("version") != FORMAT_VERSION:
        raise BadInput(
            f"{path}: format version {raw.get('version')}, this release reads {FORMAT_VERSION}; "
            "run `ligr prepare` again on the source"
        )
    raw["actions"] = tuple(raw["actions"])
    raw["notes"] = tuple(raw["notes"])
    raw["columns"] = {k: _column_stats(v) for k, v in raw["columns"].items()}
    raw["splits"] = {k: SplitStats(**v) for k, v in raw["splits"].items()}
    raw["shards"] = tuple(Shard(**s) for s in raw["shards"])
    raw["items"] = Shard(**raw["items"]) if raw["items"] else None
    return Manifest(**raw)


def _column_stats(raw: dict[str, Any]) -> ColumnStats:
    lists = {k: tuple(v) for k, v in raw.items() if isinstance(v, list)}
    return ColumnStats(**{**raw, **lists})
