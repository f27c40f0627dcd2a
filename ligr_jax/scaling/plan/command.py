"""Arguments of `ligr train` for a configuration."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ligr_jax.config import Config, ConfigError, Feature, flatten, join_list, value_text
from ligr_jax.data.manifest import load_manifest
from ligr_jax.data.schema import BadInput

_FROM_DATA = (
    "model.actions",
    "model.late_actions",
    "model.prior",
)  # settings that prepared data defines
_NOT_SHOWN = ("data.dir", "data.digest", "mesh.", "track.")  # where a run computes, not what


def train_words(config: Config, data: Path, planned: Sequence[str]) -> list[str]:
    """Return `--data DIR name=value ...` for a configuration.

    Args:
        config: the configuration.
        data: prepared data. If it is missing on this machine, its defaults are unknown, and every
            setting that the data does not define is listed.
        planned: dotted names that are listed even if they equal the default.

    Returns:
        The arguments: settings that differ from the defaults of the data, then `planned`.
    """
    flat = flatten(config)
    default = _default(data)
    if default:
        start = flatten(default)
    else:
        blank = {f.name: f.default for f in dataclasses.fields(Feature)}
        of_features = {
            f"model.features.{name}.{field}": value
            for name in config.model.features
            for field, value in blank.items()
        }
        start = flatten(Config()) | of_features | {name: flat[name] for name in _FROM_DATA}
    names = [n for n, v in flat.items() if start.get(n) != v and not n.startswith(_NOT_SHOWN)]
    words = [n for n in names if n not in planned] + list(planned)
    fewer = default is not None and set(config.model.features) < set(default.model.features)
    subset = [f"model.features={join_list(config.model.features)}"] if fewer else []
    return ["--data", str(data), *subset, *(f"{n}={value_text(flat[n])}" for n in words)]


def _default(data: Path) -> Config | None:
    """Return the default configuration of this data; None if the data cannot be read."""
    from ligr_jax.scaling.ladder import configure

    try:
        return configure(load_manifest(data), data)
    except (BadInput, ConfigError):
        return None
