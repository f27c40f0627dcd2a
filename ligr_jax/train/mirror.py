"""Weights & Biases: a mirror of metrics.jsonl, online or in a directory for a later `wandb sync`.

W&B's line i is the i-th row of metrics.jsonl, however often the run was stopped, killed, or without
its server: a session first uploads rows that never arrived, and skips those that did.

Nothing that happens to W&B stops training or changes its numbers. The client runs in a thread of
its own, and a failure costs a warning that names server, reason and remedy.
"""

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from ligr_jax.config import Config
from ligr_jax.train import wandb_client
from ligr_jax.train.rows import METRICS, read_rows
from ligr_jax.train.wandb_env import WandbOptions
from ligr_jax.train.wandb_record import open_record
from ligr_jax.train.wandb_server import address, has_key
from ligr_jax.train.wandb_session import Session

_CLOSE_S = wandb_client.FINISH_S + 60  # at the end: uploads, and a second session where one broke
_SESSIONS = 3  # the client may break, break again, and then the rows are kept offline
_log = logging.getLogger(__name__)

Row = Mapping[str, Any]


class _Summary(NamedTuple):
    values: Row


class _End(NamedTuple):
    status: int


class WandbMirror:
    """Mirrors rows to W&B: online with a key, else into the run directory for a later `wandb sync`.

    Training never waits for it before the end: a step pays for putting a row into a queue.

    Args:
        kept: how many rows metrics.jsonl has at the start.
    """

    def __init__(self, directory: Path, config: Config, options: WandbOptions, kept: int) -> None:
        self._directory, self._config, self._options = directory, config, options
        self._taken = kept  # rows of metrics.jsonl that were taken from the queue, or never in it
        self._summary: Row | None = None
        self._end: _End | None = None
        self._url = ""
        self._waiting: SimpleQueue[Row | _Summary | _End] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True, name="wandb mirror")
        self._thread.start()

    def log(self, row: Row) -> None:
        """row: already in metrics.jsonl."""
        if self._thread.is_alive():
            self._waiting.put(dict(row))

    def summarize(self, summary: Row) -> None:
        """Final numbers under their own names, and `device_seconds`: panels cannot multiply."""
        device_seconds = summary["seconds"] * summary["devices"]
        self._waiting.put(_Summary({**summary, "device_seconds": device_seconds}))

    def close(self, status: int) -> None:
        """Wait for uploads, two minutes at most; status: the exit status the run ends with."""
        self._waiting.put(_End(status))
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            self._warn(f"no end within {_CLOSE_S} s", self._remedy("--include-online "))
            wandb_client.kill_client()

    def _work(self) -> None:
        """The thread: mirror until the end, in a new session where one breaks."""
        offline, broken = False, ""
        try:
            self._url = address()
        except Exception as e:  # the client refuses its own settings
            broken = wandb_client.one_line(e)
            _log.warning("%s; nothing is mirrored, %s", broken, self._complete())
            return
        for number in range(1, _SESSIONS + 1):
            try:
                if broken:
                    wandb_client.replace_dead_client()
                self._mirror(offline or number == _SESSIONS, broken)
                return
            except Exception as e:  # whatever the client raises, training continues
                broken = wandb_client.one_line(e)
                offline = isinstance(e, TimeoutError)
        self._warn(broken, f"nothing more is sent, {self._complete()}")

    def _mirror(self, offline: bool, broken: str) -> None:
        """One session: from the rows on disk to the end of the run.

        Args:
            offline: do not try the server.
            broken: what ended the session before; "" for none.
        """
        record = open_record(self._directory, self._config, self._options.run_id)
        if record.rows is None:
            # A session killed online leaves no count: what it sent up to its checkpoint arrived.
            record.rows = self._taken
        record.write(self._directory)
        wanted = self._options.mode
        online = wanted == "online" or (wanted == "auto" and has_key(self._url))
        session = Session(self._directory, self._config, self._options, record)
        try:
            refused = session.open(online and not offline)
            if refused or (broken and offline):
                self._warn(refused or broken, self._remedy())
                broken = ""
            for index, row in enumerate(self._rows_taken()):
                session.log(index, row)
            while self._end is None:
                self._take(session, self._waiting.get())
            session.finish(self._summary, self._end.status, self._taken)
            if broken:
                self._warn(broken, "the client was started again, and every row is sent")
        except Exception:
            session.abandon()
            raise

    def _take(self, session: Session, item: "Row | _Summary | _End") -> None:
        if isinstance(item, _End):
            self._end = item
        elif isinstance(item, _Summary):
            self._summary = item.values
        else:
            self._taken += 1
            session.log(self._taken - 1, item)

    def _rows_taken(self) -> list[dict[str, Any]]:
        return read_rows(self._directory / METRICS)[: self._taken]

    def _remedy(self, option: str = "") -> str:
        where = f"{self._directory}/wandb"
        return f"the rows are kept in {where}; later: wandb sync {option}{where}"

    def _complete(self) -> str:
        return f"{self._directory / METRICS} has every row"

    def _warn(self, reason: str, remedy: str) -> None:
        _log.warning("W&B server %s: %s; %s", self._url, reason, remedy)
