"""An activity store from prepared data, so that serving reads the histories of training.

The shards are copied in blocks of chunks, so memory is bounded for histories of any length. The
file has its name only when it is complete.
"""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ligr_jax.atomic import atomic_path, link_or_copy, sync
from ligr_jax.contents import STORE, require_no_other, require_only
from ligr_jax.data.columns import action_column, feature_column
from ligr_jax.data.item_features import ITEM_ROW, item_columns
from ligr_jax.data.manifest import MISSING
from ligr_jax.data.prepare.sessions import starts_by_gap
from ligr_jax.data.records import Records
from ligr_jax.data.schema import SESSION, TIME, WEIGHT, BadInput
from ligr_jax.data.verify import require_undamaged
from ligr_jax.errors import file_errors
from ligr_jax.lock import exclusive
from ligr_jax.ops.segments import starts_segment
from ligr_jax.places import require_local
from ligr_jax.progress import Progress
from ligr_jax.serve.activity_about import ActivityAbout
from ligr_jax.serve.activity_file import (
    ACTIVITY,
    CHUNK,
    KEPT,
    ActivityFile,
    Chunk,
    create_file,
    release_file,
)
from ligr_jax.serve.activity_layout import Impressions, record_type
from ligr_jax.store.mirror import address

_log = logging.getLogger(__name__)

_BLOCK = 1 << 17  # impressions copied at a time
_GAP_MS = 30 * 60_000  # of prepared data whose manifest has no options
_ITEMS = "items-*.arrow"


def build_store(
    prepared: str | Path,
    out: Path,
    until_ms: int | None = None,
    newest: int | None = None,
    overwrite: bool = False,
) -> ActivityAbout:
    """Build an activity store from prepared data.

    Args:
        prepared: prepared directory.
        out: directory of the store. A store that was built with the same arguments is kept, with
            what was appended since.
        until_ms: impressions before this time are copied, milliseconds; None stands for all.
        newest: the most impressions per member that are copied; None stands for all.
        overwrite: replace a store that was built with other arguments.

    Returns:
        The description of the store.

    Raises:
        BadInput: the data are damaged, or the directory has another store.
        Busy: another process has the store open or builds it.
    """
    require_local(address(out))
    records = Records(prepared)
    require_no_other(out, STORE)
    require_only(out, STORE, (f"{ACTIVITY}*", _ITEMS))
    path = out / ACTIVITY
    with exclusive(out, "is building a store there"), file_errors("write", out):
        if path.exists():
            if not overwrite:
                return _existing(path, records, until_ms, newest)
            release_file(path)
        require_undamaged(records.directory, records.manifest)
        for stale in out.glob(f".{ACTIVITY}.*"):  # left by a process that was killed
            stale.unlink()
        copy = _Copy(records, until_ms, newest)
        items = out / copy.about().items_file
        if records.manifest.items:
            items.unlink(missing_ok=True)  # it may be damaged
            with atomic_path(items) as part:
                link_or_copy(records.directory / records.manifest.items.file, part)
        with atomic_path(path) as part:
            create_file(part, copy.chunks(), lambda: copy.about().to_json())
            if path.exists():  # another process may have opened it meanwhile
                release_file(path)
        for old in out.glob(_ITEMS):
            if old != items:
                old.unlink()
        sync(out)
    return copy.about()


def _existing(
    path: Path, records: Records, until_ms: int | None, newest: int | None
) -> ActivityAbout:
    """Return the description of a store that was built with the same arguments."""
    with contextlib.closing(ActivityFile(path)) as file:
        about = ActivityAbout.from_json(file.about(), path)
    if (about.data_digest, about.until_ms, about.newest) != (records.digest, until_ms, newest):
        raise BadInput(
            f"{path.parent} is a store of {about.data} (digest {about.data_digest}, until "
            f"{about.until_ms}, newest {about.newest}), not of {records.directory} (digest "
            f"{records.digest}, until {until_ms}, newest {newest}). Choose another --out, or "
            "replace the store and what was appended to it with --overwrite"
        )
    _log.info(f"already built: {path.parent}")
    return about


@dataclass
class _Copy:
    """The copy of prepared data into chunks.

    Attributes:
        records: the prepared data.
        until_ms, newest: as in `build_store`.
        by_gap: whether all sessions so far follow from gaps in time.
    """

    records: Records
    until_ms: int | None
    newest: int | None
    by_gap: bool = True

    def about(self) -> ActivityAbout:
        """Return the description of the store; sessions are known after the last chunk."""
        manifest = self.records.manifest
        return ActivityAbout(
            manifest=replace(manifest, shards=(), index=()),
            data_digest=self.records.digest,
            data=address(self.records.directory),
            sessions="gap" if self.by_gap else "session_id",
            gap_ms=self._gap_ms,
            until_ms=self.until_ms,
            newest=self.newest,
        )

    @property
    def _gap_ms(self) -> int:
        options = self.records.manifest.source.get("options", {})
        return int(options.get("session_gap_ms", _GAP_MS))

    def chunks(self) -> Iterator[tuple[int, Chunk]]:
        """Yield the chunks of all members, shard by shard."""
        progress = Progress(len(self.records), _log, "impression")
        first = 0
        for shard in self.records.manifest.shards:
            yield from self._of_members(first, first + shard.members, progress)
            first += shard.members

    def _of_members(self, first: int, stop: int, progress: Progress) -> Iterator[tuple[int, Chunk]]:
        """Yield the chunks of the members of a shard, `first` .. `stop`."""
        # The part of each history that is copied, and the time of the impression before it.
        ends = self.records.offsets[first : stop + 1]
        whole, end = ends[:-1], ends[1:]
        number = np.arange(ends[0], ends[-1])
        time_ms = self.records.take(TIME, number)
        self._compare_sessions(number, np.repeat(whole, end - whole), time_ms)
        if self.until_ms is not None:
            early = np.concatenate([[0], np.cumsum(time_ms < self.until_ms)])
            end = whole + early[end - ends[0]] - early[whole - ends[0]]
        begin = whole if self.newest is None else np.maximum(whole, end - self.newest)
        after_ms = np.where(begin > whole, time_ms[begin - ends[0] - 1], KEPT)

        # Its chunks, in blocks of about equal size.
        count = -(-(end - begin) // CHUNK)
        member = np.repeat(np.arange(len(begin)), count)
        position = np.arange(len(member)) - np.repeat(np.cumsum(count) - count, count)
        chunk_first = begin[member] + position * CHUNK
        size = np.minimum(end[member] - chunk_first, CHUNK)
        block = (np.cumsum(size) - 1) // _BLOCK
        cuts = np.flatnonzero(np.append(starts_segment(block), True))
        for a, b in zip(cuts[:-1].tolist(), cuts[1:].tolist()):
            sizes = size[a:b]
            at = np.cumsum(sizes) - sizes
            index = np.repeat(chunk_first[a:b] - at, sizes) + np.arange(sizes.sum())
            impressions = self._read(index)
            times = impressions.records[TIME]
            for k in range(a, b):
                low = int(at[k - a])
                high = low + int(size[k])
                chunk = Chunk(
                    number=int(position[k]),
                    first_ms=int(times[low]),
                    impressions=high - low,
                    after_ms=KEPT if position[k] else int(after_ms[member[k]]),
                    records=impressions.record_bytes(low, high),
                    ids=impressions.id_bytes(low, high),
                )
                yield int(self.records.member_ids[first + member[k]]), chunk
            progress.show(int(index[-1]) + 1)

    def _compare_sessions(
        self, number: np.ndarray, member: np.ndarray, time_ms: np.ndarray
    ) -> None:
        """Compare the sessions of a shard with those by gaps."""
        starts = starts_segment(member, self.records.take("session", number))
        self.by_gap &= bool((starts == starts_by_gap(member, time_ms, self._gap_ms)).all())

    def _read(self, index: np.ndarray) -> Impressions:
        """Read impressions of a shard."""
        records, manifest = self.records, self.records.manifest
        located = records.locate(index)
        per_item = item_columns(records.items, manifest)
        names = [TIME, "session", WEIGHT, *map(action_column, manifest.actions)]
        names += [ITEM_ROW] if per_item else []
        stored = {k: c for k, c in manifest.columns.items() if k not in per_item}
        names += [feature_column(k) for k, c in stored.items() if c.kind != "bag"]
        columns = {name: records.take(name, located) for name in names}
        columns[SESSION] = np.full(len(index), MISSING)
        bags = {
            feature_column(k): records.bags(k, index) for k, c in stored.items() if c.kind == "bag"
        }
        return Impressions.from_columns(record_type(manifest, per_item), columns, bags)
