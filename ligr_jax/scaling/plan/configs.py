"""A run's configuration from its row of a table, and back into words for `ligr train`."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from ligr_jax.config import Config, Feature, ModelConfig, flatten, override

_FEATURE = "model.features."
_OF_THE_DATA = ("model.actions", "model.prior")  # what prepared data says of itself


def recorded_config(row: Mapping[str, Any]) -> Config | None:
    """The configuration in a row's `config/...` columns; None where it names no features.

    Names this release does not know are passed over. Raises ConfigError for values that cannot be.
    """
    given = {k.removeprefix("config/"): v for k, v in row.items() if k.startswith("config/")}
    given = {k: v for k, v in given.items() if v is not None}
    features = {k.split(".")[2] for k in given if k.startswith(_FEATURE)}
    if not features:
        return None
    blank = ModelConfig(features={name: Feature("numeric") for name in sorted(features)})
    known = flatten(Config(model=blank))
    words = [f"{name}={_text(value)}" for name, value in given.items() if name in known]
    return override(Config(model=blank), words)


def words_for(config: Config, default: Config | None, planned: Mapping[str, Any]) -> list[str]:
    """Assignments that make `config` out of the defaults of its data.

    default: what `ligr train` starts from on that data; None where the data is not here: then all
        that the data does not say itself is named. planned: comes last.
    """
    start = flatten(default or Config())
    if default is None:
        blank = {f.name: f.default for f in dataclasses.fields(Feature)}
        names = {f"{_FEATURE}{n}": None for n in config.model.features}
        start |= {f"{n}.{field}": value for n in names for field, value in blank.items()}
        start |= {name: flatten(config)[name] for name in _OF_THE_DATA}
    words = []
    if default and set(config.model.features) < set(default.model.features):
        words.append(f"model.features={','.join(config.model.features)}")
    for name, value in flatten(config).items():
        place = name.startswith(("data.dir", "data.digest", "mesh.", "track."))
        if name not in planned and not place and start.get(name) != value:
            words.append(f"{name}={_text(value)}")
    return [*words, *(f"{name}={_text(value)}" for name, value in planned.items())]


def _text(value: Any) -> str:
    if isinstance(value, str) and value.startswith("["):  # a list, as tables hold it
        value = json.loads(value)
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
