"""One session of the W&B client for a run directory: the rows that it sends, its offline files."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ligr_jax.config import Config
from ligr_jax.exit_status import PREEMPTED
from ligr_jax.runs import wandb_client
from ligr_jax.runs.files import RunFiles
from ligr_jax.runs.wandb_client import RunRefused, RunToOpen
from ligr_jax.runs.wandb_env import WandbOptions
from ligr_jax.runs.wandb_record import MirrorRecord

_log = logging.getLogger(__name__)


class WandbSession:
    """A run of the client, from opening to finishing."""

    def __init__(
        self, directory: Path, config: Config, options: WandbOptions, record: MirrorRecord
    ) -> None:
        """
        Args:
            directory: Directory of the run.
            config: Configuration of the run.
            options: Mode and names of the W&B run.
            record: State of the mirror, which the session updates on disk.
        """
        self._directory, self._config, self._options = directory, config, options
        self._record = record
        self._mirrored = record.rows or 0

    def open(self, online: bool) -> str:
        """Open the run; if the server does not accept it, open it offline.

        Args:
            online: Whether to try the server.

        Returns:
            Why the server did not accept the run; "" if it did, or if it was not asked.
        """
        refused = ""
        if online:
            try:
                self._run = self._open_online()
            except RunRefused as e:
                online, refused = False, str(e)
        if not online:
            self._mirrored = self._record.rows or 0
            self._run = wandb_client.open_offline(self._run_to_open())
        else:  # the server counts its rows; rows of offline segments not yet synced are sent again
            self._record.segments, self._mirrored = [], self._run.starting_step
        self._drop_other_segments()
        self._record.rows = None if online else self._mirrored
        self._record.write(self._directory)
        # The summary has the last value of each metric under the metric's name, where a sweep's
        # `metric: validation/ne` expects it; `summary="min"` would move it one level deeper.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        return refused

    def log(self, index: int, row: Mapping[str, Any]) -> None:
        """Send a row of metrics.jsonl unless it is already mirrored.

        Args:
            index: Index of the row in metrics.jsonl.
            row: The row.
        """
        if index >= self._mirrored:
            self._run.log(dict(row))

    def alert(self, title: str, text: str) -> None:
        """Notify the users of the project, by e-mail or Slack as they have chosen in W&B."""
        self._run.alert(title=title, text=text, level="ERROR")

    def finish(self, summary: Mapping[str, Any] | None, status: int, rows: int) -> None:
        """End the run and wait for its uploads.

        Args:
            summary: Final numbers; None if the run is not finished.
            status: Exit status of the run.
            rows: Number of rows of metrics.jsonl.

        Raises:
            TimeoutError: The uploads took too long.
            RuntimeError: The server did not accept all rows.
        """
        if summary:
            self._run.summary.update(dict(summary))
        if status == PREEMPTED:
            self._run.mark_preempting()  # so that a sweep assigns it to an agent again
        segment = Path(self._run.dir).parent
        self._run.finish(exit_code=status)
        if self._run.offline:
            self._record.segments.append(segment.name)
        elif reason := wandb_client.upload_error(segment):
            raise RuntimeError(reason)
        self._record.rows = max(rows, self._mirrored)
        self._record.write(self._directory)

    def abandon(self) -> None:
        """Record for the next session that no row of this one is known to have arrived."""
        self._record.rows = self._mirrored
        self._record.write(self._directory)

    def _open_online(self) -> Any:
        """Open the run on the server; if its id was deleted there, open it with a new id."""
        try:
            return wandb_client.open_online(self._run_to_open())
        except RunRefused as e:
            if not e.deleted:
                raise
            previous = self._record.renew(self._config)
            self._record.write(self._directory)
            _log.warning("W&B: %s; run %s continues as run %s", e, previous, self._record.id)
            return wandb_client.open_online(self._run_to_open())

    def _run_to_open(self) -> RunToOpen:
        return RunToOpen(self._directory, self._config, self._options, self._record.id)

    def _drop_other_segments(self) -> None:
        """Remove offline segments that are not yet synced, because their rows are sent again."""
        kept = {Path(self._run.dir).parent.name, *self._record.segments}
        for segment in RunFiles(self._directory).wandb.glob(f"offline-run-*-{self._record.id}"):
            if segment.name not in kept and not list(segment.glob("*.wandb.synced")):
                shutil.rmtree(segment)
