"""Calls of the W&B client: opening a run online or offline, restarting a dead service process.

An error of the client becomes `RunRefused`, or the thread of the mirror handles it; training never
sees one.
"""

import contextlib
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wandb

from ligr_jax.config import Config
from ligr_jax.runs.wandb_env import WandbOptions
from ligr_jax.runs.wandb_identity import identify
from ligr_jax.runs.wandb_server import has_key, is_reachable, server_url

INIT_S = 15  # seconds for the server to accept a run
FINISH_S = 60  # seconds for the uploads at the end
_RELEASE_S = 10

_opening = threading.Lock()  # the runs of one process are opened one after another
_slow: set[str] = set()  # servers that have not answered a run of this process in time


class RunRefused(Exception):
    """The server does not accept a run; the message is the reason."""

    @property
    def deleted(self) -> bool:
        """Whether a run with this id was deleted; W&B accepts no other run with the id."""
        return "deleted" in str(self).lower()


@dataclass(frozen=True)
class RunToOpen:
    """What the client needs to open a run.

    Attributes:
        directory: Directory of the run.
        config: Configuration of the run.
        options: Names of the W&B run.
        run_id: Id of the W&B run.
    """

    directory: Path
    config: Config
    options: WandbOptions
    run_id: str


def open_online(run: RunToOpen) -> Any:
    """Open a run on the server, and return the run of the client.

    Raises:
        RunRefused: The server does not accept the run, or it does not answer.
    """
    url = server_url()
    with _opening:
        if not has_key(url):  # the client would prompt for a key
            raise RunRefused("there is no key for it (`wandb login`, or WANDB_API_KEY)")
        if url in _slow or not is_reachable(url):
            raise RunRefused("it does not answer")
        try:
            return _init("online", run)
        except Exception as e:
            reason = error_text(e)
            if isinstance(e, TimeoutError) or "deadline" in reason or "timed out" in reason.lower():
                _slow.add(url)
            raise RunRefused(reason) from e


def open_offline(run: RunToOpen) -> Any:
    """Open a run that the client writes only into its directory, and return the client's run."""
    with _opening:
        try:
            return _init("offline", run)
        except Exception as e:
            if "in use" not in str(e):
                raise
            # The service process still has a run of this id that the server refused.
            _release(run.run_id)
            return _init("offline", run)


def replace_dead_client() -> None:
    """Restart the client's service process if it has died; otherwise do nothing.

    Runs that train together share the process, and the first one that finds it dead restarts it.
    """
    with _opening:
        process = wandb.setup().ensure_service()._proc
        if process is not None and process._process.poll() is not None:
            with contextlib.suppress(Exception):  # teardown cannot reach the dead process
                wandb.teardown()


def kill_client() -> None:
    """Kill the client's service process, which would otherwise delay the end of this process."""
    with contextlib.suppress(Exception):
        wandb.setup().ensure_service()._proc._process.kill()  # type: ignore[union-attr]


def upload_error(segment: Path, parts: Sequence[str] = ("filestream",)) -> str:
    """Return why uploads of a finished session failed, from the client's log; "" if none did.

    Args:
        segment: directory of the session, `wandb/run-*`.
        parts: how the messages begin that count, in lower case.
    """
    log = segment / "logs" / "debug-internal.log"
    if not log.is_file():
        return ""
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            message = " ".join(entry["msg"].split())
            if entry["level"].startswith("ERROR") and message.lower().startswith(tuple(parts)):
                return message.removeprefix("filestream: fatal error: ")
    return ""


def error_text(error: BaseException) -> str:
    """Return the message of an error in one line, or the name of its class."""
    return " ".join(str(error).split()) or type(error).__name__


def _init(mode: Any, run: RunToOpen) -> Any:
    identity = identify(run.directory, run.config, run.options)
    return wandb.init(
        mode=mode,
        project=run.options.project,
        entity=run.options.entity or None,
        group=identity.group,
        job_type=identity.job_type,
        tags=identity.tags,
        id=run.run_id,
        name=identity.name,
        dir=str(run.directory),
        config=identity.config,
        resume="allow",
        settings=wandb.Settings(
            console="off",
            silent=True,
            quiet=True,
            init_timeout=INIT_S,
            finish_timeout=FINISH_S,
            finish_timeout_raises=True,
            reinit="create_new",  # a process may have several runs
        ),
    )


def _release(run_id: str) -> None:
    """Remove a refused run from the service process, where its id is in use until then."""
    service = wandb.setup().ensure_service()
    _, interface = service.inform_attach(run_id)
    interface.deliver_exit(1).wait_or(timeout=_RELEASE_S)
    service.inform_finish(run_id)
