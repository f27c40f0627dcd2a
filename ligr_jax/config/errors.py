"""The error of a configuration that cannot work."""

from ligr_jax.errors import LigrError


class ConfigError(LigrError, ValueError):
    """A configuration cannot work. The message names the field, the value and the remedy."""


def require(holds: bool, message: str) -> None:
    """Raise `ConfigError` with a message if a condition does not hold."""
    if not holds:
        raise ConfigError(message)
