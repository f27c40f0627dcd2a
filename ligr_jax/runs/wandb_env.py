"""Options of W&B from the configuration and from the environment.

A value of `track.*` that the user gives has precedence over W&B's environment variables, and these
have precedence over the defaults. An empty variable counts as unset. This module does not import
the W&B client, which would take a second.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ligr_jax.config import ConfigError, TrackConfig

PROJECT = "ligr"  # the default
# WANDB_MODE, including the client's older values, to track.wandb.
_MODES = {
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "off",
}
_ONE_RUN = ("WANDB_RUN_ID", "WANDB_NAME")  # variables that identify a single run


@dataclass(frozen=True)
class WandbOptions:
    """Mode and names of a run in W&B.

    Attributes:
        mode: auto, online, offline or off.
        mode_from: The setting that chose the mode, as the user wrote it; "" for the default.
        project: Project of the run.
        entity: User or team; "" for the default of the key.
        group: Group of the run; "" for none.
        name: Display name from the environment; "" for none.
        run_id: Id from the environment; "" for none.
    """

    mode: str
    mode_from: str
    project: str
    entity: str
    group: str
    name: str
    run_id: str


def wandb_options(track: TrackConfig) -> WandbOptions:
    """Combine `track.*` with the environment.

    Args:
        track: The part of the configuration.

    Raises:
        ConfigError: WANDB_MODE is not a mode.
    """
    mode, mode_from = _mode(track)
    return WandbOptions(
        mode=mode,
        mode_from=mode_from,
        project=track.project or environment_variable("WANDB_PROJECT") or PROJECT,
        entity=track.entity or environment_variable("WANDB_ENTITY"),
        group=track.group or environment_variable("WANDB_RUN_GROUP"),
        name=environment_variable("WANDB_NAME"),
        run_id=environment_variable("WANDB_RUN_ID"),
    )


def environment_variable(name: str) -> str:
    """Return an environment variable without surrounding spaces; "" if it is not set."""
    return os.environ.get(name, "").strip()


def normalize_environment() -> None:
    """Remove empty WANDB_ variables from the environment, and write WANDB_MODE in lower case.

    The client would refuse the empty values. Call this function before the client reads its
    settings.
    """
    for name in [n for n in os.environ if n.startswith("WANDB_")]:
        if not environment_variable(name):
            del os.environ[name]
    if mode := environment_variable("WANDB_MODE").lower():
        os.environ["WANDB_MODE"] = mode


def without_run_names(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a child that trains one of several runs.

    The variables that identify a single run are removed, because all runs would share them.
    """
    return {k: v for k, v in environment.items() if k not in _ONE_RUN}


@contextlib.contextmanager
def several_runs() -> Iterator[list[str]]:
    """Remove the variables that identify a single run during the block; yield their names."""
    removed = {name: os.environ.pop(name) for name in _ONE_RUN if name in os.environ}
    try:
        yield [name for name, value in removed.items() if value.strip()]
    finally:
        os.environ |= removed


def _mode(track: TrackConfig) -> tuple[str, str]:
    """Return the mode and the setting that chose it."""
    if track.wandb != "auto":
        return track.wandb, f"track.wandb={track.wandb}"
    if environment_variable("WANDB_DISABLED").lower() in ("1", "true", "yes", "on"):
        return "off", f"WANDB_DISABLED={environment_variable('WANDB_DISABLED')}"
    word = environment_variable("WANDB_MODE")
    if not word:
        return "auto", ""
    if word.lower() not in _MODES:
        raise ConfigError(
            f"WANDB_MODE={word} in the environment: choose online, offline or disabled, or leave "
            "it out (online with a key, else offline)"
        )
    return _MODES[word.lower()], f"WANDB_MODE={word}"
