"""Weights & Biases: a mirror of metrics.jsonl, online or in a directory for a later `wandb sync`.

W&B's line i is the i-th row of metrics.jsonl, however often the run was stopped, killed, or without
its server: a session first makes up for rows that never arrived, and skips those that did.
"""

import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import wandb

from ligr_jax.atomic import write_atomically
from ligr_jax.config import Config, digest, flatten
from ligr_jax.exit_status import PREEMPTED
from ligr_jax.train.wandb_server import address, answers, has_key

_FINISH_S = 60  # for uploads at the end; what is left lies on disk
_log = logging.getLogger(__name__)


class WandbMirror:
    """Mirrors rows to W&B: online with a key, else into the run directory for a later `wandb sync`.

    Never asks and never waits for long: without a key, or with a server that does not answer within
    seconds, it is offline. The client takes milliseconds for a row on a busy machine, so a thread
    of its own hands rows over; a step pays for putting one into a queue.

    rows: those of metrics.jsonl at the start, up to the step the run goes on from.
    """

    def __init__(self, directory: Path, config: Config, rows: Sequence[Mapping[str, Any]]) -> None:
        self._directory = directory / "wandb"
        record = _read_record(self._directory, config, len(rows))
        self._id, self._segments, self._mirrored = record["id"], record["segments"], record["rows"]
        self._run = _start(directory, config, self._id)
        if not self._run.offline:  # the server knows what it has; segments not synced are sent anew
            self._segments, self._mirrored = [], self._run.starting_step
        self._drop_other_segments()
        # A session killed online leaves no count: what it sent up to its checkpoint has arrived.
        self._write_record(self._mirrored if self._run.offline else None)
        # The summary keeps each metric's last value under its own name, where a sweep's `metric:
        # validation/ne` is looked for; `summary="min"` would put it one level deeper.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        self._seen = 0
        self._waiting: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._sender = threading.Thread(target=self._send, daemon=True)
        self._sender.start()
        for row in rows:
            self.log(row)

    def log(self, row: Mapping[str, Any]) -> None:
        self._seen += 1
        if self._seen > self._mirrored:
            self._waiting.put(partial(self._run.log, dict(row)))

    def summarize(self, summary: Mapping[str, Any]) -> None:
        """Final numbers under their own names, and `device_seconds`: panels cannot multiply."""
        device_seconds = summary["seconds"] * summary["devices"]
        final = {**summary, "device_seconds": device_seconds}
        self._waiting.put(partial(self._run.summary.update, final))

    def close(self, status: int) -> None:
        """Waits for uploads, a minute at most; status: the exit status the run ends with."""
        self._waiting.put(None)
        self._sender.join()
        segment = Path(self._run.dir).parent
        if status == PREEMPTED:
            self._run.mark_preempting()  # a sweep gives it to an agent again
        try:
            self._run.finish(exit_code=status)
        except TimeoutError:
            _log.warning(
                "W&B is slow or away: not all of this run was sent. `wandb sync --include-online "
                "%s` sends all of it; rows that had arrived are then there twice",
                segment,
            )
            return
        if self._run.offline:
            self._segments.append(segment.name)
        self._write_record(max(self._seen, self._mirrored))

    def _send(self) -> None:
        for call in iter(self._waiting.get, None):
            call()

    def _drop_other_segments(self) -> None:
        """Removes offline segments, not yet synced, whose rows are sent again."""
        kept = {Path(self._run.dir).parent.name, *self._segments}
        for segment in self._directory.glob(f"offline-run-*-{self._id}"):
            if segment.name not in kept and not list(segment.glob("*.wandb.synced")):
                shutil.rmtree(segment)

    def _write_record(self, rows: int | None) -> None:
        record = {"id": self._id, "rows": rows, "segments": self._segments}
        write_atomically(self._directory / "mirrored.json", json.dumps(record) + "\n")


def _read_record(directory: Path, config: Config, rows: int) -> dict[str, Any]:
    """W&B's `id` of the run, `rows` mirrored so far, and offline `segments` that hold them."""
    path = directory / "mirrored.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    # A sweep's agent names its runs; a run that it began keeps its name without the agent.
    name = os.environ.get("WANDB_RUN_ID") or known.get("id") or digest(config)
    if known.get("id") != name:
        return {"id": name, "rows": 0, "segments": []}
    return known if known["rows"] is not None else known | {"rows": rows}


def _start(directory: Path, config: Config, name: str) -> Any:
    """The client's run, online if it can be."""
    arguments: dict[str, Any] = {
        "project": config.track.project,
        "entity": config.track.entity or None,
        "group": config.track.group or None,
        "id": name,
        "name": directory.name,
        "dir": str(directory),
        "config": flatten(config),
        "resume": "allow",
        "settings": wandb.Settings(
            console="off",
            silent=True,
            quiet=True,
            init_timeout=15,
            finish_timeout=_FINISH_S,
            finish_timeout_raises=True,
            x_disable_stats=True,
            reinit="create_new",  # several runs of one process are several runs
        ),
    }
    url = address()
    wanted = config.track.wandb
    if wanted == "auto":
        allowed = os.environ.get("WANDB_MODE", "online") == "online"
        wanted = "online" if allowed and has_key(url) else "offline"
    if wanted == "online":
        try:
            if answers(url):
                return wandb.init(mode="online", **arguments)
        except wandb.Error as e:
            _log.warning("W&B: %s", e)
        _log.warning("%s does not take this run; later: wandb sync %s/wandb", url, directory)
    return wandb.init(mode="offline", **arguments)
