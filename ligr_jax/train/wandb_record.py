"""RUN/wandb/mirrored.json: which W&B run mirrors this directory, and which rows it has.

The id is made once per directory and written before the server hears of it, so that a run keeps its
id when it is stopped, killed or moved, and two directories of one configuration are two W&B runs.
"""

import dataclasses
import json
import logging
import os
import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ligr_jax.atomic import write_atomically
from ligr_jax.config import Config, digest

_log = logging.getLogger(__name__)


@dataclass
class MirrorRecord:
    """The state of a mirror between two sessions.

    id: of the W&B run.
    rows: how many rows are mirrored; None while a session is online, which the server counts.
    segments: offline segments that hold some of these rows.
    directory: where the run directory was, to tell a copied directory from a moved one.
    deleted: ids that the server gives to no run again.
    """

    id: str
    rows: int | None = 0
    segments: list[str] = field(default_factory=list)
    directory: str = ""
    deleted: list[str] = field(default_factory=list)

    def renew(self, config: Config) -> str:
        """Take another id, under which nothing is mirrored; returns the old one."""
        before = self.id
        self.deleted.append(before)
        self.id, self.rows, self.segments = new_id(config), 0, []
        return before

    def write(self, run: Path) -> None:
        (run / "wandb").mkdir(exist_ok=True)
        write_atomically(record_path(run), json.dumps(dataclasses.asdict(self)) + "\n")


def record_path(run: Path) -> Path:
    return run / "wandb" / "mirrored.json"


def new_id(config: Config) -> str:
    """An id that no other directory has; it begins with the digest of the configuration."""
    return f"{digest(config)}-{secrets.token_hex(4)}"


def open_record(run: Path, config: Config, forced_id: str) -> MirrorRecord:
    """The record of a run directory, made or brought up to date.

    A copy of a run directory gets an id of its own, where the original is still in its place.

    Args:
        forced_id: an id that the environment gives, e.g. a sweep's agent; "" for none.
    """
    record = _read(run)
    if record and _is_copy(record, run):
        _log.warning(
            "%s is a copy of %s, which is W&B run %s: the copy becomes a W&B run of its own",
            run,
            record.directory,
            record.id,
        )
        _drop_copied_segments(record, run)
        record = None
    if forced_id and forced_id not in (record.deleted if record else ()):
        if record is None or record.id != forced_id:
            record = MirrorRecord(forced_id)
    elif record is None:
        record = MirrorRecord(new_id(config))
    record.directory = str(run.resolve())
    return record


def _read(run: Path) -> MirrorRecord | None:
    path = record_path(run)
    if not path.exists():
        return None
    try:
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        record = MirrorRecord(**known)
        _require_types(record)
    except (OSError, ValueError, TypeError) as e:
        _log.warning("%s cannot be read (%s): this run gets another id in W&B", path, e)
        return None
    return record


def _require_types(record: MirrorRecord) -> None:
    """Raise ValueError if a field has a value that this program does not write."""
    rows = record.rows
    valid = {
        "id": isinstance(record.id, str) and record.id != "",
        "rows": rows is None or (isinstance(rows, int) and rows >= 0),
        "segments": _is_list_of_str(record.segments),
        "directory": isinstance(record.directory, str),
        "deleted": _is_list_of_str(record.deleted),
    }
    for name, is_valid in valid.items():
        if not is_valid:
            raise ValueError(f"{name} is {getattr(record, name)!r}")


def _is_list_of_str(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_copy(record: MirrorRecord, run: Path) -> bool:
    """Whether the directory that this record was written in still exists, with the same id."""
    original = Path(record.directory or run)
    try:
        other = json.loads(record_path(original).read_text(encoding="utf-8"))
        return other["id"] == record.id and not os.path.samefile(original, run)
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _drop_copied_segments(record: MirrorRecord, run: Path) -> None:
    """Remove offline segments of the original run, which the original directory still has."""
    for segment in (run / "wandb").glob(f"offline-run-*-{record.id}"):
        if (Path(record.directory) / "wandb" / segment.name).exists():
            shutil.rmtree(segment, ignore_errors=True)
