"""The manifest of a prepared data set: what it holds, in numbers two people can compare.

A prepared directory is

    manifest.json                     this file's `Manifest`
    members-00000-of-00004.arrow ...  Arrow IPC files (uncompressed, one record batch each)
    items.arrow                       optional: vectors, bags and semantic ids, one row per item

A record of a members file is one member. Its scalars are `member_id` (int64) and `n_context`,
`n_train`, `n_validation`, `n_test` (int32): the history in order is that many untimed context rows,
then the impressions of each split. Every other column is a list, all of a record equally long:

    timestamp_ms   int64    -1 in untimed context rows
    session        int32    counted from 0 in the member; an untimed context row is its own session
    weight         float32  1 where the log has none
    is_random      int8     0, 1, or -1 where the log does not say
    item_row       int32    row of items.arrow, -1 where there is none (only with items.arrow)
    action:<name>  int8     0, 1, or -1 where unknown
    truth:<action> float32  true probability (only where the log has it)
    feature:<name>          by its kind:
      categorical  int64    integers as they are, strings by xxh64 (seed 0); MISSING where null
      bag          large_list<int64>, such ids in the log's order, null ones dropped
      numeric      float32  NaN where missing
      vector       fixed_size_list<float32>

Vectors and bags that the item table gives are in items.arrow alone, by `item_id`, and so are
semantic ids (`feature:sid1` ..., int64; see `ligr_jax.data.prepare.attach`).

Format version 1 had the users' names without their role (`like`, `p_like`). It is still read; a
name that stood for two columns there is refused.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ligr_jax.data import columns as names
from ligr_jax.data.schema import BadInput, Kind
from ligr_jax.digests import DamagedFile, read_json, write_json

MANIFEST = "manifest.json"
FORMAT_VERSION = 2
READABLE = (1, FORMAT_VERSION)
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

    @property
    def user_columns(self) -> list[str]:
        """The columns of the log and its item table, as files of this version name them."""
        truth = [names.truth(a) for a in self.actions] if self.truth else []
        features = [names.feature(n) for n in self.columns]
        return [*(names.action(a) for a in self.actions), *features, *truth]

    def content(self) -> dict[str, Any]:
        """The manifest as JSON has it."""
        raw = dataclasses.asdict(self)
        for stats in raw["columns"].values():
            if not stats["id_range"]:  # left out, so that data without one keep their digests
                del stats["id_range"]
        return {"format": "ligr-prepared", **raw}

    def to_json(self) -> str:
        return json.dumps(self.content(), indent=1)


def save_manifest(manifest: Manifest, directory: Path) -> None:
    """Write DIRECTORY/manifest.json, last: a directory with a manifest is complete."""
    write_json(directory / MANIFEST, manifest.content())


def load_manifest(directory: Path) -> Manifest:
    """Read DIRECTORY/manifest.json.

    Raises:
        BadInput: no manifest there, a damaged or changed one, or one of another format version.
    """
    path = Path(directory) / MANIFEST
    if not path.is_file():
        raise BadInput(
            f"{directory} holds no manifest.json; make one: `ligr prepare SOURCE --out {directory}`"
        )
    try:
        raw = read_json(path, "prepare the data again")
    except DamagedFile as e:
        raise BadInput(str(e)) from e
    if raw.pop("format", None) != "ligr-prepared":
        raise BadInput(f"{path}: not a manifest of prepared data; make one with `ligr prepare`")
    if raw.get("version") not in READABLE:
        raise BadInput(
            f"{path}: format version {raw.get('version')}, this release reads "
            f"{' and '.join(map(str, READABLE))}; run `ligr prepare` again on the source"
        )
    try:
        manifest = _manifest(raw)
    except (KeyError, TypeError, AttributeError) as e:
        raise BadInput(f"{path}: not a complete manifest ({e}); prepare the data again") from e
    twice = names.ambiguous(manifest.user_columns) if manifest.version == 1 else []
    if twice:
        raise BadInput(
            f"{path}: an earlier release prepared this data and stored two columns under each of "
            f"the names {twice}, so that one replaced the other; run `ligr prepare` again"
        )
    return manifest


def _manifest(raw: dict[str, Any]) -> Manifest:
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
