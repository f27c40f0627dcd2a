"""The W&B client: opening a run online or offline, and replacing a client that died.

Any error of the client becomes `Refused` or reaches the mirror's thread; none reaches training.
"""

import contextlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import wandb

from ligr_jax.config import Config, flatten
from ligr_jax.train.wandb_env import WandbOptions
from ligr_jax.train.wandb_server import address, answers, has_key

INIT_S = 15  # for the server to take a run
FINISH_S = 60  # for uploads at the end
_RELEASE_S = 10

_opening = threading.Lock()  # runs of one process are opened one after another
_slow: set[str] = set()  # servers that one run of this process waited for in vain


class Refused(Exception):
    """The server does not take a run; the message says why."""

    @property
    def deleted(self) -> bool:
        """Whether a run of this id was deleted; W&B gives its id to no other run."""
        return "deleted" in str(self).lower()


def open_online(directory: Path, config: Config, options: WandbOptions, run_id: str) -> Any:
    """Open a run that the server takes.

    Raises:
        Refused: the server does not take it.
    """
    url = address()
    with _opening:
        if not has_key(url):  # the client would ask for one
            raise Refused("there is no key for it (`wandb login`, or WANDB_API_KEY)")
        if url in _slow or not answers(url):
            raise Refused("it does not answer")
        try:
            return _init("online", directory, config, options, run_id)
        except Exception as e:
            reason = one_line(e)
            if isinstance(e, TimeoutError) or "deadline" in reason or "timed out" in reason.lower():
                _slow.add(url)
            raise Refused(reason) from e


def open_offline(directory: Path, config: Config, options: WandbOptions, run_id: str) -> Any:
    """Open a run that is written into the run directory only."""
    with _opening:
        try:
            return _init("offline", directory, config, options, run_id)
        except Exception as e:
            if "in use" not in str(e):
                raise
            # A run that the server refused holds the id.
            _release(run_id)
            return _init("offline", directory, config, options, run_id)


def replace_dead_client() -> None:
    """Start the client's service process again if it died; else do nothing.

    Runs trained together share the process: the first one that finds it dead replaces it.
    """
    with _opening:
        process = wandb.setup().ensure_service()._proc
        if process is not None and process._process.poll() is not None:
            with contextlib.suppress(Exception):  # it cannot be reached to say goodbye
                wandb.teardown()


def kill_client() -> None:
    """Kill the client's service process: one that hangs would keep this process from ending."""
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


def one_line(error: BaseException) -> str:
    """The message of an error, or its kind."""
    return " ".join(str(error).split()) or type(error).__name__


def _init(mode: Any, directory: Path, config: Config, options: WandbOptions, run_id: str) -> Any:
    return wandb.init(
        mode=mode,
        project=options.project,
        entity=options.entity or None,
        group=options.group or None,
        id=run_id,
        name=options.name or directory.resolve().name,
        dir=str(directory),
        config=flatten(config),
        resume="allow",
        settings=wandb.Settings(
            console="off",
            silent=True,
            quiet=True,
            init_timeout=INIT_S,
            finish_timeout=FINISH_S,
            finish_timeout_raises=True,
            x_disable_stats=True,
            reinit="create_new",  # several runs of one process are several runs
        ),
    )


def _release(run_id: str) -> None:
    """End the service's part of a run that was refused; until then its id is in use."""
    service = wandb.setup().ensure_service()
    _, interface = service.inform_attach(run_id)
    interface.deliver_exit(1).wait_or(timeout=_RELEASE_S)
    service.inform_finish(run_id)
