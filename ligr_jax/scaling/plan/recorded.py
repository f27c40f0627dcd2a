"""Configurations and work that runs recorded."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ligr_jax.config import Config, Feature, ModelConfig, flatten, override, value_text
from ligr_jax.runs.columns import config_field, is_config_column
from ligr_jax.runs.run_table import RunTable
from ligr_jax.scaling.plan.rule import GrowthRule

FEATURES = "model.features."
_WORK = ("flops_model", "impressions", "targets")


@dataclass(frozen=True)
class RecordedRun:
    """Configuration and work of a finished run.

    Attributes:
        name: name of the run.
        config: its configuration.
        flops_model: training FLOPs, counted.
        impressions: impressions that were read.
        targets: impressions that were trained on.
        packing: fraction of a row that is not padding.
        seconds: seconds of training; None if not recorded.
        devices: number of devices; None if not recorded.
        device: kind of the devices; "" if not recorded.
    """

    name: str
    config: Config
    flops_model: float
    impressions: float
    targets: float
    packing: float
    seconds: float | None
    devices: int | None
    device: str


@dataclass(frozen=True)
class RecordedRuns:
    """Finished runs in order of compute.

    `best` is the configuration of the largest run on the frontier, which a plan starts from.
    """

    runs: tuple[RecordedRun, ...]
    best: Config


def recorded(table: RunTable, rule: GrowthRule) -> RecordedRuns | None:
    """Return the runs with recorded configuration and work; None if the best run has none.

    Raises:
        ConfigError: a recorded configuration is invalid.
    """
    runs = []
    best = None
    ordered = table.sort(rule.axis)
    for name, row in zip(ordered.names, ordered.rows()):
        config = config_of(row)
        if config and all(row.get(name) for name in _WORK):
            runs.append(_run_of(name, row, config))
            best = config if name == rule.frontier[-1] else best
    return RecordedRuns(runs=tuple(runs), best=best) if best else None


def config_of(row: Mapping[str, Any]) -> Config | None:
    """Return the configuration in the `config/...` columns of a row; None if it has no features.

    Lists may be given as JSON text, as in tables. Names that this release does not have are
    ignored.

    Raises:
        ConfigError: a value is invalid.
    """
    values = {config_field(k): v for k, v in row.items() if is_config_column(k)}
    values = {k: v for k, v in values.items() if v is not None}
    fields = [k.removeprefix(FEATURES) for k in values if k.startswith(FEATURES)]
    features = sorted({field.rpartition(".")[0] for field in fields})
    if not features:
        return None
    blank = Config(model=ModelConfig(features={name: Feature("numeric") for name in features}))
    known = flatten(blank)
    given = {
        name: json.loads(v) if isinstance(known[name], tuple) and isinstance(v, str) else v
        for name, v in values.items()
        if name in known
    }
    return override(blank, [f"{name}={value_text(v)}" for name, v in given.items()])


def _run_of(name: str, row: Mapping[str, Any], config: Config) -> RecordedRun:
    return RecordedRun(
        name=name,
        config=config,
        flops_model=row["flops_model"],
        impressions=row["impressions"],
        targets=row["targets"],
        packing=row.get("packing") or 1.0,
        seconds=row.get("seconds"),
        devices=row.get("devices"),
        device=str(row.get("device") or ""),
    )
