"""One session of the W&B client for one run directory: which rows it has, and what it leaves."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ligr_jax.config import Config
from ligr_jax.exit_status import PREEMPTED
from ligr_jax.train import wandb_client
from ligr_jax.train.wandb_client import Refused
from ligr_jax.train.wandb_env import WandbOptions
from ligr_jax.train.wandb_record import MirrorRecord

_log = logging.getLogger(__name__)


class Session:
    """A run of the client, from opening to finishing.

    record: where the mirror stands; kept up to date on disk.
    """

    def __init__(
        self, directory: Path, config: Config, options: WandbOptions, record: MirrorRecord
    ) -> None:
        self._directory, self._config, self._options = directory, config, options
        self._record = record
        self._mirrored = record.rows or 0

    def open(self, online: bool) -> str:
        """Open the run, offline where the server does not take it; returns why it did not."""
        refused = ""
        if online:
            try:
                self._run = self._open_online()
            except Refused as e:
                online, refused = False, str(e)
        if not online:
            self._mirrored = self._record.rows or 0
            self._run = wandb_client.open_offline(
                self._directory, self._config, self._options, self._record.id
            )
        else:  # the server knows what it has; offline segments not synced are sent again
            self._record.segments, self._mirrored = [], self._run.starting_step
        self._drop_other_segments()
        self._record.rows = None if online else self._mirrored
        self._record.write(self._directory)
        # The summary keeps each metric's last value under its own name, where a sweep's `metric:
        # validation/ne` is looked for; `summary="min"` would put it one level deeper.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        return refused

    def log(self, index: int, row: Mapping[str, Any]) -> None:
        """Send row `index` of metrics.jsonl, unless it is mirrored."""
        if index >= self._mirrored:
            self._run.log(dict(row))

    def finish(self, summary: Mapping[str, Any] | None, status: int, rows: int) -> None:
        """End the run, and wait for its uploads.

        Args:
            summary: final numbers, of a run that has them.
            status: the exit status of the run.
            rows: how many metrics.jsonl has.

        Raises:
            TimeoutError: uploads took too long.
            RuntimeError: the server did not take all rows.
        """
        if summary:
            self._run.summary.update(dict(summary))
        if status == PREEMPTED:
            self._run.mark_preempting()  # a sweep gives it to an agent again
        segment = Path(self._run.dir).parent
        self._run.finish(exit_code=status)
        if self._run.offline:
            self._record.segments.append(segment.name)
        elif reason := wandb_client.upload_error(segment):
            raise RuntimeError(reason)
        self._record.rows = max(rows, self._mirrored)
        self._record.write(self._directory)

    def abandon(self) -> None:
        """Note, for the next session, that no row of this one is known to have arrived."""
        self._record.rows = self._mirrored
        self._record.write(self._directory)

    def _open_online(self) -> Any:
        """The run on the server, under another id where its own was deleted there."""
        try:
            return wandb_client.open_online(
                self._directory, self._config, self._options, self._record.id
            )
        except Refused as e:
            if not e.deleted:
                raise
            before = self._record.renew(self._config)
            self._record.write(self._directory)
            _log.warning("W&B: %s; run %s continues as run %s", e, before, self._record.id)
            return wandb_client.open_online(
                self._directory, self._config, self._options, self._record.id
            )

    def _drop_other_segments(self) -> None:
        """Remove offline segments, not yet synced, whose rows are sent again."""
        kept = {Path(self._run.dir).parent.name, *self._record.segments}
        for segment in (self._directory / "wandb").glob(f"offline-run-*-{self._record.id}"):
            if segment.name not in kept and not list(segment.glob("*.wandb.synced")):
                shutil.rmtree(segment)
