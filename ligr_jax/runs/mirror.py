"""The mirror of metrics.jsonl in Weights & Biases, online or on disk for a later `wandb sync`.

Step i of the W&B run is row i of metrics.jsonl, even if the run was stopped or killed, or if the
server was unreachable: each session first uploads the missing rows, and it skips the others.

No failure of W&B stops training or changes its numbers. The client runs in a thread, and a failure
is a warning with the server, the reason and the remedy.
"""

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from ligr_jax.config import Config
from ligr_jax.runs import wandb_client
from ligr_jax.runs.columns import is_config_column, metric_name
from ligr_jax.runs.files import RunFiles
from ligr_jax.runs.rows import read_rows
from ligr_jax.runs.wandb_env import WandbOptions
from ligr_jax.runs.wandb_record import open_record
from ligr_jax.runs.wandb_server import has_key, server_url
from ligr_jax.runs.wandb_session import WandbSession

_CLOSE_S = wandb_client.FINISH_S + 60  # for the last uploads, and for a second session if one fails
_SESSIONS = 3  # after two failures, the last session is offline
_log = logging.getLogger(__name__)

Row = Mapping[str, Any]


class _Summary(NamedTuple):
    values: Row


class _Alert(NamedTuple):
    title: str
    text: str


class _End(NamedTuple):
    status: int


class WandbMirror:
    """Mirrors the rows of a run to W&B: online with a key, otherwise into the run directory.

    Training does not wait for W&B before the end; a step only appends its row to a queue.
    """

    def __init__(self, directory: Path, config: Config, options: WandbOptions, kept: int) -> None:
        """
        Args:
            directory: Directory of the run.
            config: Configuration of the run.
            options: Mode and names of the W&B run.
            kept: Number of rows that metrics.jsonl has at the start.
        """
        self._directory, self._config, self._options = directory, config, options
        self._taken = kept  # number of rows of metrics.jsonl that the thread knows
        self._summary: Row | None = None
        self._end: _End | None = None
        self._url = ""
        self._queue: SimpleQueue[Row | _Summary | _Alert | _End] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True, name="wandb mirror")
        self._thread.start()

    def log(self, row: Row) -> None:
        """Queue a row.

        Args:
            row: The newest row of metrics.jsonl.
        """
        if self._thread.is_alive():
            self._queue.put(dict(row))

    def summarize(self, summary: Row) -> None:
        """Queue the final numbers under the names of W&B, without the configuration.

        Args:
            summary: Numbers by name.
        """
        numbers = {metric_name(k): v for k, v in summary.items() if not is_config_column(k)}
        self._queue.put(_Summary(numbers))

    def alert(self, title: str, text: str) -> None:
        """Queue a message to the users of the project.

        Args:
            title: What happened; W&B sends one message per title and minute.
            text: Details and remedy.
        """
        self._queue.put(_Alert(title, text))

    def close(self, status: int) -> None:
        """Wait for the uploads, at most two minutes.

        Args:
            status: Exit status of the run.
        """
        self._queue.put(_End(status))
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            reason = f"it has not taken all rows within {_CLOSE_S} s"
            self._warn(reason, self._remedy("--include-online "))
            wandb_client.kill_client()

    def _work(self) -> None:
        """Run in the thread: mirror until the end of the run, in a new session after a failure."""
        offline, failure = False, ""
        try:
            self._url = server_url()
        except Exception as e:  # the client refuses its settings
            _log.warning(
                "%s; nothing is mirrored, %s", wandb_client.error_text(e), self._complete()
            )
            return
        for number in range(1, _SESSIONS + 1):
            try:
                if failure:
                    wandb_client.replace_dead_client()
                self._run_session(offline or number == _SESSIONS, failure)
                return
            except Exception as e:  # training continues after any error of the client
                failure = wandb_client.error_text(e)
                offline = isinstance(e, TimeoutError)
        self._warn(failure, f"nothing more is sent, {self._complete()}")

    def _run_session(self, offline: bool, failure: str) -> None:
        """Mirror in one session, from the rows on disk to the end of the run.

        Args:
            offline: Whether not to try the server.
            failure: Why the previous session failed; "" for none.
        """
        record = open_record(self._directory, self._config, self._options.run_id)
        if record.rows is None:
            # An online session that was killed leaves no count; rows of its checkpoint had arrived.
            record.rows = self._taken
        record.write(self._directory)
        mode = self._options.mode
        online = mode == "online" or (mode == "auto" and has_key(self._url))
        session = WandbSession(self._directory, self._config, self._options, record)
        try:
            refused = session.open(online and not offline)
            if refused or (failure and offline):
                self._warn(refused or failure, self._remedy())
                failure = ""
            for index, row in enumerate(self._rows_on_disk()):
                session.log(index, row)
            while self._end is None:
                self._process(session, self._queue.get())
            session.finish(self._summary, self._end.status, self._taken)
            if failure:
                self._warn(failure, "the client was restarted, and it has sent all rows")
        except Exception:
            session.abandon()
            raise

    def _process(self, session: WandbSession, item: "Row | _Summary | _Alert | _End") -> None:
        if isinstance(item, _End):
            self._end = item
        elif isinstance(item, _Summary):
            self._summary = item.values
        elif isinstance(item, _Alert):
            session.alert(*item)
        else:
            self._taken += 1
            session.log(self._taken - 1, item)

    def _rows_on_disk(self) -> list[dict[str, Any]]:
        if not self._taken:  # the file may be absent
            return []
        return read_rows(RunFiles(self._directory).metrics)[: self._taken]

    def _remedy(self, option: str = "") -> str:
        where = RunFiles(self._directory).wandb
        return f"the rows are kept in {where}; later: wandb sync {option}{where}"

    def _complete(self) -> str:
        return f"{RunFiles(self._directory).metrics} has every row"

    def _warn(self, reason: str, remedy: str) -> None:
        _log.warning("W&B server %s: %s; %s", self._url, reason, remedy)
