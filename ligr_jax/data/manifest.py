"""The manifest of a prepared data set, and the format of its files.

A prepared directory holds

    manifest.json                     this file's `Manifest`
    members-00000-of-00004.arrow ...  Arrow IPC files (uncompressed, one record batch each)
    items.arrow                       optional: vectors, bags and semantic ids, one row per item

A record of a members file is one member. Its scalars are `member_id` (int64) and the row counts
`n_context`, `n_train`, `n_validation`, `n_test` (int32). The history of the member consists of the
untimed context rows and then the impressions of each split, in order of time. Every other column is
a list with one element per row of the history:

    timestamp_ms   int64    -1 in untimed context rows; shares of the history if time_is_order
    session        int32    counted from 0 per member; an untimed context row is its own session, or
                            part of a block of rows if the train split has these rows as targets
    weight         float32  1 if the log has no weights
    is_random      int8     0, 1, or -1 if unknown
    item_row       int32    row of items.arrow, -1 if the item has none (only with items.arrow)
    action:<name>  int8     0, 1, or -1 if unknown
    truth:<action> float32  true probability (only if the log has it)
    feature:<name>          by kind:
      categorical  int64    integers are unchanged, strings are hashed (xxh64), null is MISSING
      bag          large_list<int64>, ids as above in the order of the log, without null ids
      numeric      float32  NaN if missing
      vector       fixed_size_list<float32>

Vectors and bags of the item table are stored only in items.arrow, by `item_id`, and so are semantic
ids (`feature:sid1` ..., int64; see `ligr_jax.data.prepare.attach`).

Format version 1 stored the names of the log without their role (`like`, `p_like`). It is still
read, unless one of its names stands for two columns.
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
from ligr_jax.store.mirror import local_path, uri_of
from ligr_jax.store.room import hold
from ligr_jax.store.stage import stage, stage_file

MANIFEST = "manifest.json"  # file name in a prepared directory
SHARDS = "members-*.arrow"  # pattern of the names of shards
FORMAT_VERSION = 2
READABLE = (1, FORMAT_VERSION)
SPLITS = ("train", "validation", "test")
CONTEXT_TARGETS = "context_targets"  # count: untimed rows that are targets of the train split
MISSING = -(2**63)  # stands for a missing categorical id
QUANTILES = 33  # number of equally spaced quantiles, minimum and maximum included
PLACES = 64  # positions in a bag for which `ColumnStats.places` is measured


@dataclass(frozen=True)
class ColumnStats:
    """Statistics of a feature column, measured on the train split unless said otherwise.

    Attributes:
        kind: kind of the column.
        outcome: whether the value is known only after the impression.
        width: length of a vector.
        distinct: number of distinct ids in the whole log (categorical, bag). It is exact up to
            65,536 ids and an estimate with an error of about 1 % above.
        exact: whether `distinct` is exact.
        id_range: ids are in 0..id_range-1, also those of future items (categorical); 0 if ids are
            not bounded.
        missing: share of rows without a value, or with an empty bag.
        quantiles: `QUANTILES` equally spaced quantiles of the present values (numeric).
        longest: largest number of ids in a bag, in the whole log.
        places: shares of the ids that are first, second, ... in their bag, up to `PLACES`.
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
    """Impressions with start_ms <= timestamp_ms < end_ms.

    Attributes:
        start_ms, end_ms: ends of the split, milliseconds since 1970 (UTC).
        impressions: number of impressions.
        members: number of members with an impression in the split.
        positive_rate: share of positive labels among the known labels of each action, in rows with
            a weight above 0. Actions without a known label are left out.
    """

    start_ms: int
    end_ms: int
    impressions: int
    members: int
    positive_rate: Mapping[str, float]


@dataclass(frozen=True)
class Shard:
    """One file of members.

    Attributes:
        file: name of the file in the directory.
        members: number of members (of items in items.arrow).
        impressions: number of rows of all histories, context included.
        xxh64: digest of the file's bytes, 16 hex digits.
    """

    file: str
    members: int
    impressions: int
    xxh64: str


@dataclass(frozen=True)
class Manifest:
    """Description of a prepared data set.

    Attributes:
        actions: label columns, in the order of the model's tasks.
        columns: statistics of every feature, by name.
        splits: train, validation and test.
        shards: the files of members.
        counts: numbers of members, impressions, context rows, duplicates, skipped rows, ...
        truth: whether the log has true probabilities.
        items: the file of the item table, or None.
        index: the files of the index (`ligr_jax.data.index`); empty in data of earlier releases.
        source: files and options that determine the output. `prepare` compares it to decide
            whether an output is up to date.
        notes: what a reader of results must know about the data.
        late_actions: actions that are targets and never history (`LogSchema.late_actions`).
        time_is_order: whether times are no times (`LogSchema.time_is_order`).
        split_per_member: whether the splits are parts of each member's history, not of time.
        version: format version of the files.
    """

    actions: tuple[str, ...]
    columns: Mapping[str, ColumnStats]
    splits: Mapping[str, SplitStats]
    shards: tuple[Shard, ...]
    counts: Mapping[str, int]
    truth: bool = False
    items: Shard | None = None
    index: tuple[Shard, ...] = ()
    source: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    late_actions: tuple[str, ...] = ()
    time_is_order: bool = False
    split_per_member: bool = False
    version: int = FORMAT_VERSION

    @property
    def trains_on_context(self) -> bool:
        """Whether untimed context rows are targets of the train split."""
        return self.counts.get(CONTEXT_TARGETS, 0) > 0

    @property
    def digest(self) -> str:
        """Twelve hex digits over the manifest without the index. Equal digests mean equal data."""
        content = self.content()
        content.pop("index", None)
        return hashlib.sha256(json.dumps(content, indent=1).encode()).hexdigest()[:12]

    @property
    def user_columns(self) -> list[str]:
        """Stored names of the columns of the log and its item table."""
        truth = [names.truth_column(a) for a in self.actions] if self.truth else []
        features = [names.feature_column(n) for n in self.columns]
        return [*(names.action_column(a) for a in self.actions), *features, *truth]

    def content(self) -> dict[str, Any]:
        """Return the manifest as a JSON object."""
        raw = dataclasses.asdict(self)
        for stats in raw["columns"].values():
            if not stats["id_range"]:  # absent, so that digests of earlier data do not change
                del stats["id_range"]
        for name in ("index", "late_actions", "time_is_order", "split_per_member"):
            if not raw[name]:
                del raw[name]
        return {"format": "ligr-prepared", **raw}

    def to_json(self) -> str:
        """Return the manifest as JSON text."""
        return json.dumps(self.content(), indent=1)


def save_manifest(manifest: Manifest, directory: Path) -> None:
    """Write DIRECTORY/manifest.json.

    The manifest must be written after all other files, because a directory with a manifest counts
    as complete.
    """
    write_json(directory / MANIFEST, manifest.content())


def stage_data(directory: Path) -> None:
    """Fetch prepared data of an object store, compared with the digests of its manifest.

    Args:
        directory: prepared directory; nothing is done unless it is in a working copy.

    Raises:
        BadInput: the manifest is absent or damaged.
        StoreError: an object is damaged or vanished, or the store does not answer.
    """
    if uri_of(directory) is not None:
        manifest = load_manifest(directory)
        files = [s for s in (*manifest.shards, manifest.items, *manifest.index) if s is not None]
        stage(directory, digests={file.file: file.xxh64 for file in files})
        hold(directory)


def load_manifest(directory: Path) -> Manifest:
    """Read DIRECTORY/manifest.json.

    Raises:
        BadInput: the manifest is absent, damaged, changed, or of another format version.
    """
    path = local_path(directory) / MANIFEST
    stage_file(path)
    if not path.is_file():
        raise BadInput(
            f"{directory} holds no manifest.json; make one: `ligr prepare SOURCE --out {directory}`"
        )
    try:
        raw = read_json(path, "prepare the data again")
    except DamagedFile as e:
        raise BadInput(str(e)) from e
    return parse_manifest(raw, path)


def parse_manifest(raw: dict[str, Any], path: Path) -> Manifest:
    """Return the manifest of a JSON object (`Manifest.content`).

    Args:
        raw: the object; it is changed.
        path: its file, for messages.

    Raises:
        BadInput: it is not a manifest, not complete, or of another format version.
    """
    if raw.pop("format", None) != "ligr-prepared":
        raise BadInput(f"{path}: not a manifest of prepared data; make one with `ligr prepare`")
    if raw.get("version") not in READABLE:
        raise BadInput(
            f"{path} has format version {raw.get('version')}, but this release reads versions "
            f"{' and '.join(map(str, READABLE))}; run `ligr prepare` again on the source"
        )
    try:
        manifest = _manifest(raw)
    except (KeyError, TypeError, AttributeError) as e:
        raise BadInput(f"{path}: not a complete manifest ({e}); prepare the data again") from e
    twice = names.ambiguous_names(manifest.user_columns) if manifest.version == 1 else []
    if twice:
        raise BadInput(
            f"{path}: an earlier release prepared this data and stored two columns under each of "
            f"the names {twice}, so that one replaced the other; run `ligr prepare` again"
        )
    return manifest


def _manifest(raw: dict[str, Any]) -> Manifest:
    raw["actions"] = tuple(raw["actions"])
    raw["notes"] = tuple(raw["notes"])
    raw["late_actions"] = tuple(raw.get("late_actions", ()))
    raw["columns"] = {k: column_stats(v) for k, v in raw["columns"].items()}
    raw["splits"] = {k: SplitStats(**v) for k, v in raw["splits"].items()}
    raw["shards"] = tuple(Shard(**s) for s in raw["shards"])
    raw["items"] = Shard(**raw["items"]) if raw["items"] else None
    raw["index"] = tuple(Shard(**s) for s in raw.get("index", ()))
    return Manifest(**raw)


def column_stats(raw: dict[str, Any]) -> ColumnStats:
    """Return the statistics of a column from JSON."""
    lists = {k: tuple(v) for k, v in raw.items() if isinstance(v, list)}
    return ColumnStats(**{**raw, **lists})
