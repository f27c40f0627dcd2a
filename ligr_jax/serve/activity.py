"""A member's activity: histories that serving reads and extends, equal to those of training.

    store = ActivityStore("stores/feed")                    built by `ligr store build`
    store.append([{"member_id": 7, "timestamp_ms": ..., "item_id": 5, "click": 1, ...}])
    batch = store.batch([7, 12], config.model, newest=512)  what the data pipeline makes of them

A store is a directory with one SQLite file and a link to the item table of the prepared data. Any
number of processes read it; writers wait for each other. An append that has returned survives a
kill of the process and a crash of the host, and an append that was interrupted leaves nothing.

**Why SQLite and not LMDB.** SQLite is in Python's standard library, so a store needs no package;
its file grows and shrinks with its content, where LMDB needs a map of a size chosen in advance and
never shrinks; and several writers are safe. LMDB reads faster, because it maps the file. The
difference is small beside the assembly of a batch; `experiments/activity_store.py` measures both.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import polars as pl

from ligr_jax.config import ModelConfig
from ligr_jax.data.assemble import Assembler
from ligr_jax.data.bags import Bags
from ligr_jax.data.batch import Batch
from ligr_jax.data.columns import action_column, feature_column
from ligr_jax.data.frames import frame_from_arrow, frame_from_dicts, parse_frame
from ligr_jax.data.item_features import ITEM_ROW, ItemFeatures, item_columns
from ligr_jax.data.manifest import Manifest
from ligr_jax.data.packing import PackingPlan
from ligr_jax.data.prepare.sorting import sort_by_member_and_time
from ligr_jax.data.schema import MEMBER, SESSION, TIME, WEIGHT, BadInput, Column, LogSchema
from ligr_jax.data.sources.cells import clean_cells
from ligr_jax.data.sources.ids import to_ids
from ligr_jax.digests import DamagedFile
from ligr_jax.ops.segments import segments
from ligr_jax.serve.activity_about import ActivityAbout
from ligr_jax.serve.activity_append import merge
from ligr_jax.serve.activity_columns import StoredColumns
from ligr_jax.serve.activity_compact import compact_file
from ligr_jax.serve.activity_file import ACTIVITY, EARLIEST, ActivityFile
from ligr_jax.serve.activity_layout import Impressions, decoded, record_type


class Appended(NamedTuple):
    """Result of an append.

    Attributes:
        added: number of impressions that the store has now and did not have before.
        repeated: number of impressions that it already had, with the same values.
        late: number of impressions that are older than one that `compact` dropped; they are not
            added.
    """

    added: int
    repeated: int
    late: int


class ActivityStore:
    """The impressions of members.

    An object may be used by several threads. A forked process opens connections of its own.

    Attributes:
        about: what the store has of the prepared data that it was built from.
        manifest: actions and statistics of the columns.
        items: the features that are stored once per item, or None.
    """

    def __init__(self, directory: str | Path, data_digest: str = "") -> None:
        """
        Args:
            directory: directory of the store.
            data_digest: digest that the prepared data of the store must have, e.g. that of the run;
                "" accepts any.

        Raises:
            BadInput: there is no store, or it was built from other data.
            DamagedFile: a file is damaged, or not of an activity store.
            FileError: a file cannot be opened.
        """
        self.directory = Path(directory)
        path = self.directory / ACTIVITY
        if not path.is_file():
            raise BadInput(
                f"{directory} holds no activity store; make one: `ligr store build PREPARED --out "
                f"{directory}`"
            )
        self._file = ActivityFile(path)
        try:
            self.about = ActivityAbout.from_json(self._file.about(), path)
            self._open(data_digest)
        except BaseException:
            self.close()
            raise

    def _open(self, data_digest: str) -> None:
        self.manifest: Manifest = self.about.manifest
        if data_digest and self.about.data_digest != data_digest:
            raise BadInput(
                f"{self.directory} was built from data with digest {self.about.data_digest}, but "
                f"{data_digest} is expected; build a store from the data of the run"
            )
        self.items = None
        if self.manifest.items:
            file = self.directory / self.about.items_file
            self.items = ItemFeatures(file, self.manifest)
            if len(self.items) != self.manifest.items.members:
                raise DamagedFile(
                    f"{file} has {len(self.items):,} items, but {self.manifest.items.members:,} "
                    "were written; restore it from the prepared data, or build the store again"
                )
        self._item_features = tuple(item_columns(self.items, self.manifest))
        self._record = record_type(self.manifest, self._item_features)
        self._schema = LogSchema(
            self.manifest.actions,
            {
                name: Column(stats.kind, stats.outcome, width=stats.width or 1)
                for name, stats in self.manifest.columns.items()
            },
        )
        self._assembler: tuple[ModelConfig, Assembler] | None = None

    def append(self, rows: Any) -> Appended:
        """Add impressions, all of them or, after an error, none.

        An impression that the store already has, with the same values, is not added again, so an
        append whose answer was lost can be repeated. Impressions of a member may come in any order;
        they are merged by time.

        Args:
            rows: rows of the canonical log (`ligr_jax.data.schema`): a polars or pandas DataFrame,
                another object with the Arrow interface, or dictionaries. Features that are stored
                once per item are not read; they follow from `item_id`. `session_id` is needed if
                the sessions of the prepared data are not those by gaps in time.

        Returns:
            Counts of the impressions.

        Raises:
            BadInput: a column is missing, or a value is not valid, with the message of `prepare`.
            Busy: other processes write for a long time.
            FileError: the file cannot be written.
        """
        if hasattr(rows, "__arrow_c_stream__"):
            table = frame_from_arrow(rows)
        else:
            table = clean_cells(frame_from_dicts(rows).to_arrow())
        if not table.height:
            return Appended(0, 0, 0)
        sessions = self.about.sessions == SESSION
        parsed = parse_frame(table, self._schema, sessions, self._item_features)
        member = parsed[MEMBER].to_numpy()
        order = sort_by_member_and_time(member, parsed[TIME].to_numpy())
        member, impressions = member[order], self._impressions(parsed)[order]
        total = np.zeros(3, np.int64)
        with self._file.writing() as connection:
            for first, length in zip(*segments(member)):
                new = impressions[np.arange(first, first + length)]
                since_ms = EARLIEST if sessions else int(new.records[TIME][0])
                old = self._file.since(int(member[first]), since_ms)
                merged = merge(old, new, self.about)
                self._file.replace(connection, int(member[first]), merged.chunks)
                total += (merged.added, merged.repeated, merged.late)
        return Appended(*total.tolist())

    def _impressions(self, parsed: pl.DataFrame) -> Impressions:
        """Return the impressions of a parsed frame."""
        names = [TIME, WEIGHT, *map(action_column, self.manifest.actions)]
        names += [SESSION] if SESSION in parsed.columns else []
        bags = {}
        for name, stats in self.manifest.columns.items():
            if name in self._item_features:
                continue
            column = feature_column(name)
            if stats.kind == "bag":
                bags[column] = Bags.from_arrow(parsed[column].to_arrow())
            else:
                names.append(column)
        columns = {name: parsed[name].to_numpy() for name in names}
        if self.items is not None:
            columns[ITEM_ROW] = self.items.find(parsed[feature_column("item_id")].to_numpy())
        return Impressions.from_columns(self._record, columns, bags)

    def read(self, member: int | str, newest: int) -> Impressions:
        """Return the newest impressions of a member, oldest first; none of an unknown member.

        Args:
            member: id of the member in the log.
            newest: the most impressions that are returned.

        Raises:
            DamagedFile: the impressions are damaged.
        """
        (key,) = _member_ids(np.array([member])).tolist()
        return self._read(key, newest)

    def _read(self, key: int, newest: int) -> Impressions:
        chunks = self._file.newest(key, newest)
        return decoded(self._record, chunks).newest(newest)

    def batch(
        self,
        members: Sequence[int] | Sequence[str] | np.ndarray,
        model: ModelConfig,
        newest: int,
        capacity: int | None = None,
    ) -> Batch:
        """Return the histories of members, as the data pipeline makes them.

        Sessions are counted from the oldest impression that is read, and times from the first one.

        Args:
            members: ids of the members in the log.
            model: configuration of the model, `config.model` of the run.
            newest: the most impressions per member.
            capacity: N, impressions of a row, at least `newest`. Default: `newest`.

        Returns:
            A batch with one row per member; the row of an unknown member has only padding.

        Raises:
            BadInput: `capacity` is below `newest`.
            ConfigError: the store lacks a feature or an action of the model.
            DamagedFile: impressions are damaged.
        """
        capacity = newest if capacity is None else capacity
        if not 1 <= newest <= capacity:
            raise BadInput(
                f"newest={newest}, capacity={capacity}: give 1 <= newest <= capacity, so that the "
                "histories fit into the rows"
            )
        histories = [self._read(key, newest) for key in _member_ids(members).tolist()]
        lengths = np.array([len(h) for h in histories], np.int64)
        stop = np.cumsum(lengths)
        plan = PackingPlan(
            capacity=capacity,
            start=stop - lengths,
            target=stop - lengths,
            stop=stop,
            bounds=np.arange(len(histories) + 1),
        )
        # Padding reads impression 0, which an empty batch does not have.
        padding = Impressions(np.zeros(1, self._record), Bags.empty(1))
        impressions = Impressions.concatenate([*histories, padding])
        records = StoredColumns(self.manifest, impressions, self.items)
        return self._assembled(model, records, plan)(np.arange(len(plan)))

    def _assembled(
        self, model: ModelConfig, records: StoredColumns, plan: PackingPlan
    ) -> Assembler:
        """Return an assembler; that of the last model is kept, because its scales take time."""
        last = self._assembler
        if last is None or last[0] is not model:
            last = self._assembler = (model, Assembler(records, plan, model))
        return last[1].over(records, plan)

    def compact(self, newest: int | None = None, before_ms: int | None = None) -> int:
        """Drop old impressions of all members, and give their space back to the file system.

        Readers and writers continue meanwhile. Impressions older than those that were dropped are
        not added later, as long as the member has newer ones.

        Args:
            newest: the most impressions per member that are kept; None: any number.
            before_ms: impressions before this time are dropped, milliseconds; None: none.

        Returns:
            The number of impressions that were dropped.

        Raises:
            BadInput: neither argument is given, or `newest` is not positive.
        """
        if (newest is None and before_ms is None) or (newest is not None and newest < 1):
            raise BadInput(
                f"newest={newest}, before_ms={before_ms}: give a positive number of impressions to "
                "keep per member, or a time"
            )
        return compact_file(self._file, self._record, newest, before_ms)

    def size(self) -> tuple[int, int]:
        """Return the numbers of members and of impressions."""
        return self._file.size()

    def close(self) -> None:
        """Close the files of the store."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _member_ids(members: Sequence[int] | Sequence[str] | np.ndarray) -> np.ndarray:
    """Return ids of the log as `prepare` stores them."""
    try:
        return to_ids(pl.Series(members))
    except TypeError as e:
        raise BadInput(f"members: {e}; give integers or strings as in the log") from e
