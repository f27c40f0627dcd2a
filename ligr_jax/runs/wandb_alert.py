"""A message about a run that no process trains, to the users of its W&B project."""

import logging
from dataclasses import replace
from pathlib import Path

from ligr_jax.config import Config
from ligr_jax.errors import LigrError
from ligr_jax.exit_status import FAILED
from ligr_jax.runs.files import RunFiles
from ligr_jax.runs.rows import read_rows
from ligr_jax.runs.wandb_env import wandb_options

_log = logging.getLogger(__name__)


def send_alert(directory: Path, config: Config, title: str, text: str) -> None:
    """Open the W&B run of a failed run once more, to send a message and its missing rows.

    A process that is killed cannot send why. Nothing is sent in an offline mode or without a key,
    and a failure of W&B is a warning.

    Args:
        directory: Directory of the run.
        config: Configuration of the run.
        title: What happened, in a few words.
        text: Details and remedy.
    """
    try:
        # The names of a single run in the environment would belong to all runs of a sweep.
        options = replace(wandb_options(config.track), run_id="", name="")
        if options.mode not in ("auto", "online"):
            return
        # The client takes a second to import.
        from ligr_jax.runs.mirror import WandbMirror
        from ligr_jax.runs.wandb_server import has_key, server_url

        if not has_key(server_url()):
            return
        metrics = RunFiles(directory).metrics
        rows = len(read_rows(metrics)) if metrics.exists() else 0
        mirror = WandbMirror(directory, config, options, rows)
    except (LigrError, OSError) as e:
        _log.warning(f"{directory}: no message is sent to W&B: {e}")
        return
    mirror.alert(title, text)
    mirror.close(FAILED)
