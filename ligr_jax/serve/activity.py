"""A member's activity: histories that serving reads and extends, equal to those of training.

    store = ActivityStore("stores/feed")                    built by `ligr store build`
    store.append([{"member_id": 7, "timestamp_ms": ..., "item_id": 5, "click": 1, ...}])
    batch = store.batch([7, 12], config.model, newest=512)  what the data pipeline makes of them

A store is a directory with one SQLite file and a link to the item table of the prepared data. Any
number of processes read it; writers wait for each other. An append that has returned survives a
kill of the process and a crash of the host, and an append that was interrupted leaves nothing.

**Why SQLite and not LMDB.** SQLite is in Python's standard library, so a store needs no package;
its file grows and shrinks with its content, where LMDB needs a map of a size chosen in advance and
never shrinks. `experiments/activity_store.py` measured 35 microseconds for the bytes of 512
impressions, digests compared, against 11 by LMDB, without digests. A batch of them takes 552, and a
commit waits for the disk in both.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import polars as pl

from ligr_jax.config import ModelConfig
from ligr_jax.data.batch import Batch
from ligr_jax.data.item_features import ItemFeatures
from ligr_jax.data.prepare.sorting import sort_by_member_and_time, stable_argsort
from ligr_jax.data.schema import SESSION, TIME, BadInput
from ligr_jax.data.sources.ids import to_ids
from ligr_jax.data.verify import damage
from ligr_jax.digests import DamagedFile
from ligr_jax.ops.segments import segments
from ligr_jax.serve.activity_about import ActivityAbout
from ligr_jax.serve.activity_append import merge
from ligr_jax.serve.activity_columns import WindowAssembler
from ligr_jax.serve.activity_compact import compact_file
from ligr_jax.serve.activity_file import ACTIVITY, EARLIEST, ActivityFile
from ligr_jax.serve.activity_layout import Impressions, decoded
from ligr_jax.serve.activity_rows import RowParser


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
        self.manifest = self.about.manifest
        if data_digest and self.about.data_digest != data_digest:
            raise BadInput(
                f"{self.directory} was built from data with digest {self.about.data_digest}, but "
                f"{data_digest} is expected; build a store from the data of the run"
            )
        self.items: ItemFeatures | None = None
        if self.manifest.items:
            file = self.directory / self.about.items_file
            try:
                self.items = ItemFeatures(file, self.manifest)
                found = f"{len(self.items):,} items"
            except BadInput:
                found = "no item table"
            if self.items is None or len(self.items) != self.manifest.items.members:
                raise DamagedFile(
                    f"{file} has {found}, but {self.manifest.items.members:,} items were written; "
                    f"restore it from {self.about.data}, or build the store again"
                )
        self._rows = RowParser(self.about, self.items)
        self._assemble = WindowAssembler(self.manifest, self._rows.record, self.items)

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
        return self.append_parsed(*self._rows.impressions(rows))

    def append_parsed(self, member: np.ndarray, impressions: Impressions) -> Appended:
        """Add impressions of members, int64 [n], that were parsed before; see `append`."""
        order = sort_by_member_and_time(member, impressions.records[TIME])
        member, impressions = member[order], impressions[order]
        total = np.zeros(3, np.int64)
        with self._file.writing() as connection:
            for first, length in zip(*segments(member)):
                key = int(member[first])
                new = impressions[np.arange(first, first + length)]
                by_id = self.about.sessions == SESSION
                since_ms = EARLIEST if by_id else int(new.records[TIME][0])
                merged = merge(self._file.since(key, since_ms), new, self.about)
                self._file.replace(connection, key, merged.chunks)
                total += (merged.added, merged.repeated, merged.late)
        return Appended(*total.tolist())

    def read(self, member: int | str, newest: int) -> Impressions:
        """Return the newest impressions of a member, oldest first; none of an unknown member.

        Args:
            member: id of the member in the log.
            newest: the most impressions that are returned.

        Raises:
            BadInput: `newest` is not positive.
            DamagedFile: the impressions are damaged.
        """
        (key,) = _member_ids(np.array([member])).tolist()
        return self._read(key, newest)

    def count(self, member: int | str) -> int:
        """Return the number of impressions of a member."""
        (key,) = _member_ids(np.array([member])).tolist()
        return self._file.count(key)

    def read_counted(self, member: int | str, newest: int) -> tuple[int, Impressions]:
        """Return the number of impressions of a member, and the newest ones, at one moment."""
        (key,) = _member_ids(np.array([member])).tolist()
        while True:
            count, impressions = self._file.count(key), self._read(key, newest)
            if count == self._file.count(key):
                return count, impressions

    def _read(self, key: int, newest: int) -> Impressions:
        if newest < 1:
            raise BadInput(f"newest={newest}: give a positive number of impressions")
        chunks = self._file.newest(key, newest)
        return decoded(self._rows.record, chunks).newest(newest)

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
            BadInput: there are no members, `capacity` is below `newest`, or `newest` is not
                positive.
            ConfigError: the store lacks a feature or an action of the model.
            DamagedFile: impressions are damaged.
        """
        capacity = newest if capacity is None else capacity
        if newest > capacity:
            raise BadInput(
                f"newest={newest} impressions do not fit into capacity={capacity}; give fewer, or "
                "a larger capacity"
            )
        histories = self._histories(members, newest)
        return self._assemble(model, histories, np.zeros(len(histories), np.int64), capacity)

    def windows(
        self,
        members: Sequence[int] | Sequence[str] | np.ndarray,
        candidates: Sequence[Any],
        model: ModelConfig,
        newest: int,
        capacity: int | None = None,
    ) -> Batch:
        """Return histories with the candidates of a request as the newest session of each row.

        This is the batch that the data pipeline makes if the candidates are shown and nothing is
        known of the actions: the candidates are the targets, with unknown labels.

        Args:
            members: ids of the members in the log, one per request.
            candidates: rows of the canonical log for each request, in any form of `append`. They
                have `timestamp_ms`, the time of the request, and the features, except outcomes and
                those that are stored once per item.
            model: configuration of the model, `config.model` of the run.
            newest: the most impressions per history.
            capacity: N, impressions of a row. Default: `newest` and the most candidates.

        Raises:
            BadInput: a candidate is not valid, the numbers of members and requests differ, or
                histories and candidates do not fit into the rows.
            ConfigError: the store lacks a feature or an action of the model.
            DamagedFile: impressions are damaged.
        """
        histories = self._histories(members, newest)
        if len(candidates) != len(histories):
            raise BadInput(
                f"{len(histories)} members and candidates of {len(candidates)} requests: give one "
                "list of candidates per member"
            )
        shown = self.parse_candidates(candidates)
        most = max(map(len, shown), default=0)
        capacity = newest + most if capacity is None else capacity
        if newest + most > capacity:
            raise BadInput(
                f"newest={newest} and {most} candidates do not fit into capacity={capacity}; give "
                "fewer, or a larger capacity"
            )
        return self.assemble(histories, shown, model, capacity)

    def parse_candidates(self, candidates: Sequence[Any]) -> list[Impressions]:
        """Return the candidates of requests; `candidates` and errors as in `windows`."""
        return self._rows.candidates(candidates)

    def parse_history(self, rows: Any) -> Impressions:
        """Return the history of a member who need not be in the store, oldest impression first.

        Args:
            rows: as in `append`; `member_id` is not read.

        Raises:
            BadInput: as in `append`.
        """
        impressions = self._rows.history(rows)
        by_time = stable_argsort(impressions.records[TIME])
        return decoded(self._rows.record, merge([], impressions[by_time], self.about).chunks)

    def assemble(
        self,
        histories: Sequence[Impressions],
        candidates: Sequence[Impressions],
        model: ModelConfig,
        capacity: int | None = None,
    ) -> Batch:
        """Return the batch of `windows` for impressions that were read or parsed.

        Args:
            histories: history of each request, oldest impression first.
            candidates: candidates of each request.
            model: as in `windows`.
            capacity: N, impressions of a row, at least those of the longest one. Default: those.

        Raises:
            ConfigError: the store lacks a feature or an action of the model.
        """
        rows = []
        for history, shown in zip(histories, candidates, strict=True):
            shown.records["session"] = 1 + history.records["session"][-1] if len(history) else 0
            rows.append(Impressions.concatenate([history, shown]))
        if capacity is None:
            capacity = max(1, *map(len, rows)) if rows else 1
        lengths = np.array([len(history) for history in histories], np.int64)
        return self._assemble(model, rows, lengths, capacity)

    def _histories(
        self, members: Sequence[int] | Sequence[str] | np.ndarray, newest: int
    ) -> list[Impressions]:
        keys = _member_ids(members).tolist()
        if not keys:
            raise BadInput("members is empty; give at least one id")
        return [self._read(key, newest) for key in keys]

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
        return compact_file(self._file, self._rows.record, newest, before_ms)

    def require_intact(self) -> None:
        """Read all files, and compare them with their digests.

        Raises:
            DamagedFile: a file is damaged.
        """
        self._file.require_intact()
        if self.manifest.items:
            file = self.directory / self.about.items_file
            problem = damage(file, self.manifest.items)
            if problem:
                raise DamagedFile(
                    f"{problem}; restore it from {self.about.data}, or build the store again"
                )

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
    except (TypeError, pl.exceptions.PolarsError) as e:
        raise BadInput(f"members: {e}; give integers or strings as in the log") from e
