"""What the environment says about W&B, where the configuration leaves it open.

A value of `track.*` given by the user wins over W&B's variables, and they win over defaults. An
empty variable counts as none. The W&B client is not imported here: that takes a second.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ligr_jax.config import ConfigError, TrackConfig

PROJECT = "ligr"  # where neither the configuration nor the environment names one
# WANDB_MODE, with the client's older words -> track.wandb.
_MODES = {
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "off",
}
_ONE_RUN = ("WANDB_RUN_ID", "WANDB_NAME")  # variables that name a single run


@dataclass(frozen=True)
class WandbOptions:
    """How and under which names a run is mirrored.

    mode: auto, online, offline or off.
    mode_from: the setting that chose the mode, as the user wrote it; "" for the default.
    name, run_id: "" where the environment names none.
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

    Raises:
        ConfigError: WANDB_MODE is no mode.
    """
    mode, mode_from = _mode(track)
    return WandbOptions(
        mode=mode,
        mode_from=mode_from,
        project=track.project or variable("WANDB_PROJECT") or PROJECT,
        entity=track.entity or variable("WANDB_ENTITY"),
        group=track.group or variable("WANDB_RUN_GROUP"),
        name=variable("WANDB_NAME"),
        run_id=variable("WANDB_RUN_ID"),
    )


def check_wandb(track: TrackConfig) -> None:
    """Refuse, before training, what `track.*` and the environment ask for and cannot have.

    Raises:
        ConfigError: WANDB_MODE is no mode, or online was asked for and there is no key.
    """
    options = wandb_options(track)
    if options.mode != "online":
        return
    from ligr_jax.train.wandb_server import address, has_key

    url = address()
    if not has_key(url):
        raise ConfigError(
            f"{options.mode_from} needs a key for {url}: run `wandb login`, set WANDB_API_KEY, or "
            "choose track.wandb=offline"
        )


def variable(name: str) -> str:
    """A variable of the environment, without spaces around it; "" where it is not set."""
    return os.environ.get(name, "").strip()


def tidy_environment() -> None:
    """Remove empty WANDB_ variables, and write the mode as the client reads it.

    The client takes an empty variable for a value, and refuses it. Call this before the client
    reads its settings.
    """
    for name in [n for n in os.environ if n.startswith("WANDB_")]:
        if not variable(name):
            del os.environ[name]
    if mode := variable("WANDB_MODE").lower():
        os.environ["WANDB_MODE"] = mode


def without_run_names(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a child that trains one run of several: they do not become one."""
    return {k: v for k, v in environment.items() if k not in _ONE_RUN}


@contextlib.contextmanager
def several_runs() -> Iterator[list[str]]:
    """Remove the variables that name a single run, within the block; yields their names."""
    removed = {name: os.environ.pop(name) for name in _ONE_RUN if name in os.environ}
    try:
        yield [name for name, value in removed.items() if value.strip()]
    finally:
        os.environ |= removed


def _mode(track: TrackConfig) -> tuple[str, str]:
    """The mode, and the setting that chose it."""
    if track.wandb != "auto":
        return track.wandb, f"track.wandb={track.wandb}"
    if variable("WANDB_DISABLED").lower() in ("1", "true", "yes", "on"):
        return "off", f"WANDB_DISABLED={variable('WANDB_DISABLED')}"
    word = variable("WANDB_MODE")
    if not word:
        return "auto", ""
    if word.lower() not in _MODES:
        raise ConfigError(
            f"WANDB_MODE={word} in the environment: choose online, offline or disabled, or leave "
            "it out (online with a key, else offline)"
        )
    return _MODES[word.lower()], f"WANDB_MODE={word}"
