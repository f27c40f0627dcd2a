"""Checks before training: what can be known beforehand is refused before anything is compiled."""

import jax
import numpy as np

from ligr_jax.config import Config, ConfigError, ModelConfig
from ligr_jax.data.manifest import MISSING
from ligr_jax.data.records import Records

_KERNELS = ("gpu", "tpu")  # implementations of attention that one kind of device runs


def require_trainable(config: Config, records: Records) -> None:
    """Refuse a configuration that would fail, or crawl, after training has begun.

    Raises:
        ConfigError: names the setting, its value and the remedy.
    """
    _require_device(config.model)
    require_whole_tables(config)
    require_validation_rows(config, records)
    require_rows_for_ids(config.model, records)


def has_kernel(model: ModelConfig) -> bool:
    """Return whether the devices of this process run the implementation of attention."""
    return model.implementation not in _KERNELS or model.implementation == jax.default_backend()


def require_rows_for_ids(model: ModelConfig, records: Records) -> None:
    """Refuse an id of any split that a direct lookup has no row for.

    Raises:
        ConfigError: names the feature, the id, the split and file that hold it, and the remedy.
    """
    for name, feature in model.features.items():
        if feature.kind != "categorical" or feature.lookup != "direct":
            continue
        for ids in records.ids(name):
            outside = ids[((ids < 0) | (ids >= feature.rows - 1)) & (ids != MISSING)]
            if len(outside):
                largest = max((int(part.max(initial=0)) for part in records.ids(name)), default=0)
                rows = f"model.features.{name}.rows >= {largest + 2}"
                remedy = f"set {rows}, or lookup=hash" if outside.min() >= 0 else "set lookup=hash"
                raise ConfigError(
                    f"model.features.{name}.lookup=direct has a row for ids 0 to "
                    f"{feature.rows - 2}, and {records.locate_id(name, np.int64(outside[0]))} "
                    f"holds id {int(outside[0])}; {remedy}"
                )


def require_whole_tables(config: Config) -> None:
    """Refuse a softmax over all items with tables of which a step reads only the batch's rows.

    Raises:
        ConfigError: names the settings and the remedy.
    """
    if config.model.next_item and config.optim.table_optimizer != "adamw":
        raise ConfigError(
            f"model.next_item={config.model.next_item} computes a softmax over all rows of its "
            f"table, and optim.table_optimizer={config.optim.table_optimizer} reads only the rows "
            "of a batch; set optim.table_optimizer=adamw"
        )


def _require_device(model: ModelConfig) -> None:
    if not has_kernel(model):
        raise ConfigError(
            f"model.implementation={model.implementation} is a kernel for "
            f"{model.implementation.upper()}s, and the devices of this process are of the kind "
            f"{jax.default_backend()!r}; leave model.implementation=auto, which chooses by device"
        )


def require_validation_rows(config: Config, records: Records) -> None:
    """Refuse evaluations during training on an empty validation split.

    Raises:
        ConfigError: names the setting, the data and the remedy.
    """
    if config.train.eval_every and not records.manifest.splits["validation"].impressions:
        raise ConfigError(
            f"train.eval_every={config.train.eval_every} measures the validation split, which has "
            f"no impression in {records.directory}; set train.eval_every=0, or prepare the data "
            "with other split boundaries"
        )
