"""RUN/wandb/mirrored.json: the W&B run that mirrors a directory, and the rows that it has.

The id is created once per directory and written before the run is opened on the server. A run
therefore keeps its id when it is stopped, killed or moved, and two directories with the same
configuration are two W&B runs.
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
from ligr_jax.runs.files import RunFiles

_log = logging.getLogger(__name__)


@dataclass
class MirrorRecord:
    """State of a mirror between two sessions.

    Attributes:
        id: Id of the W&B run.
        rows: Number of mirrored rows; None while a session is online, because the server counts.
        segments: Names of offline sessions whose files contain some of these rows.
        directory: Path of the run directory, which distinguishes a copy from a moved directory.
        deleted: Earlier ids, of runs that were deleted on the server and cannot be used again.
    """

    id: str
    rows: int | None = 0
    segments: list[str] = field(default_factory=list)
    directory: str = ""
    deleted: list[str] = field(default_factory=list)

    def renew(self, config: Config) -> str:
        """Choose a new id, which has no mirrored rows.

        Args:
            config: Configuration of the run.

        Returns:
            The previous id.
        """
        previous = self.id
        self.deleted.append(previous)
        self.id, self.rows, self.segments = new_id(config), 0, []
        return previous

    def write(self, run: Path) -> None:
        """Write the record into a run directory."""
        files = RunFiles(run)
        files.wandb.mkdir(exist_ok=True)
        write_atomically(files.mirror, json.dumps(dataclasses.asdict(self)) + "\n")


def new_id(config: Config) -> str:
    """Return a unique id that begins with the digest of the configuration."""
    return f"{digest(config)}-{secrets.token_hex(4)}"


def open_record(run: Path, config: Config, forced_id: str) -> MirrorRecord:
    """Read the record of a run directory, or create it.

    A copy of a run directory gets a new id if the original directory still exists.

    Args:
        run: Directory of the run.
        config: Configuration of the run.
        forced_id: Id from the environment, e.g. from the agent of a sweep; "" for none.
    """
    record = _read(run)
    if record and _is_copy(record, run):
        _log.warning(
            "%s is a copy of %s, which is W&B run %s: the copy becomes another W&B run",
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
    path = RunFiles(run).mirror
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
    """Return whether the directory in which the record was written still exists with its id."""
    original = Path(record.directory or run)
    try:
        other = json.loads(RunFiles(original).mirror.read_text(encoding="utf-8"))
        return other["id"] == record.id and not os.path.samefile(original, run)
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _drop_copied_segments(record: MirrorRecord, run: Path) -> None:
    """Remove the copies of offline segments that the original directory still has."""
    for segment in RunFiles(run).wandb.glob(f"offline-run-*-{record.id}"):
        if (RunFiles(Path(record.directory)).wandb / segment.name).exists():
            shutil.rmtree(segment, ignore_errors=True)
