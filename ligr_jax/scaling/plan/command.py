"""The words after `ligr train` that make a configuration."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ligr_jax.config import Config, ConfigError, Feature, flatten
from ligr_jax.data.manifest import load_manifest
from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.plan.recorded import text_of

_OF_THE_DATA = ("model.actions", "model.prior")  # what prepared data says of itself
_ELSEWHERE = ("data.dir", "data.digest", "mesh.", "track.")  # where a run computes, not what


def train_words(config: Config, data: Path, planned: Sequence[str]) -> list[str]:
    """`--data DIR name=value ...`: what differs from the defaults of that data, then `planned`.

    Where the data is not here, everything that it may not say itself is named.

    planned: dotted names, named whatever their value.
    """
    flat, default = flatten(config), _default(data)
    if default:
        start = flatten(default)
    else:
        blank = {f.name: f.default for f in dataclasses.fields(Feature)}
        of_features = {
            f"model.features.{name}.{field}": value
            for name in config.model.features
            for field, value in blank.items()
        }
        start = flatten(Config()) | of_features | {name: flat[name] for name in _OF_THE_DATA}
    names = [n for n, v in flat.items() if start.get(n) != v and not n.startswith(_ELSEWHERE)]
    words = [n for n in names if n not in planned] + list(planned)
    fewer = default is not None and set(config.model.features) < set(default.model.features)
    subset = [f"model.features={','.join(config.model.features)}"] if fewer else []
    return ["--data", str(data), *subset, *(f"{n}={text_of(flat[n])}" for n in words)]


def _default(data: Path) -> Config | None:
    """What `ligr train` starts from on this data; None where it is not here."""
    from ligr_jax.scaling.ladder import configure

    try:
        return configure(load_manifest(data), data)
    except (BadInput, ConfigError):
        return None
