"""A check before training that W&B can run in the requested mode."""

from ligr_jax.config import ConfigError, TrackConfig
from ligr_jax.runs.wandb_env import wandb_options


def check_wandb(track: TrackConfig) -> None:
    """Check before training that W&B can run in the requested mode.

    Args:
        track: The part of the configuration.

    Raises:
        ConfigError: WANDB_MODE is not a mode, or the mode is online and there is no key.
    """
    options = wandb_options(track)
    if options.mode != "online":
        return
    # The client takes a second to import.
    from ligr_jax.runs.wandb_server import has_key, server_url

    url = server_url()
    if not has_key(url):
        raise ConfigError(
            f"{options.mode_from} needs a key for {url}: run `wandb login`, set WANDB_API_KEY, or "
            "choose track.wandb=offline"
        )
