"""What runs recorded of themselves: configurations, work done."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from ligr_jax.config import Config, Feature, ModelConfig, flatten, override
from ligr_jax.scaling.plan.rule import Rule

_WORK = ("flops_model", "impressions", "targets")


@dataclass(frozen=True)
class Recorded:
    """Rows of the runs' table and their configurations, cheapest first.

    best: the configuration of the frontier's largest run, where a plan starts from.
    """

    rows: tuple[dict[str, Any], ...]
    configs: tuple[Config, ...]
    best: Config


def recorded(table: pl.DataFrame, rule: Rule) -> Recorded | None:
    """The runs that record their configuration and work; None where the best run does not.

    Raises ConfigError for a configuration that cannot be.
    """
    rows, configs, best = [], [], None
    for row in table.sort(rule.axis).to_dicts():
        config = config_of(row)
        if config and all(row.get(name) for name in _WORK):
            rows.append(row)
            configs.append(config)
            best = config if row["run"] == rule.frontier[-1] else best
    return Recorded(tuple(rows), tuple(configs), best) if best else None


def config_of(row: Mapping[str, Any]) -> Config | None:
    """The configuration in a row's `config/...` columns; None where it names no features.

    Names this release does not know are passed over. Raises ConfigError for values that cannot be.
    """
    given = {k.removeprefix("config/"): v for k, v in row.items() if k.startswith("config/")}
    given = {k: v for k, v in given.items() if v is not None}
    features = sorted({k.split(".")[2] for k in given if k.startswith("model.features.")})
    if not features:
        return None
    blank = Config(model=ModelConfig(features={name: Feature("numeric") for name in features}))
    known = flatten(blank)
    return override(blank, [f"{name}={text_of(v)}" for name, v in given.items() if name in known])


def text_of(value: Any) -> str:
    """A value as `override` reads it; lists may be their JSON text, as tables hold them."""
    if isinstance(value, str) and value.startswith("["):
        value = json.loads(value)
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
