"""What is raised where a configuration cannot work."""

from ligr_jax.errors import LigrError


class ConfigError(LigrError, ValueError):
    """A configuration that cannot work: the message names the field, the value and the remedy."""


def require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)
