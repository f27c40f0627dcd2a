"""The row of a model's post feature, e.g. the bucket of the display position, in a batch."""

import numpy as np

from ligr_jax.config import ConfigError, ModelConfig
from ligr_jax.data.batch import Batch


def at_post_row(batch: Batch, model: ModelConfig, row: int | np.ndarray) -> Batch:
    """Return a batch whose impressions have another row of the post feature.

    Args:
        batch: NumPy arrays.
        model: configuration of the model; without a post feature the batch is returned.
        row: int, or int [B, N]: rows of the feature; 0 keeps that of the batch.
    """
    name = model.post_feature
    if not name:
        return batch
    shown = np.asarray(batch.ids[name])
    chosen = np.where(np.asarray(row) > 0, row, shown).astype(shown.dtype)
    return batch._replace(ids={**batch.ids, name: chosen})


def with_default_post_row(batch: Batch, model: ModelConfig, row: int) -> Batch:
    """Return a batch whose impressions without a row of the post feature have `row`.

    Args:
        batch: NumPy arrays.
        model: configuration of the model; without a post feature the batch is returned.
        row: row of the feature.
    """
    name = model.post_feature
    if not name:
        return batch
    return at_post_row(batch, model, np.where(np.asarray(batch.ids[name]) == 0, row, 0))


def require_post_row(model: ModelConfig, row: int, field: str, smallest: int = 1) -> None:
    """Raise `ConfigError` if a model with a post feature has no such row.

    Args:
        model: configuration of the model.
        row: row of the post feature.
        field: name of the setting, for the message.
        smallest: smallest valid row.
    """
    if model.post_feature and not smallest <= row < model.post_rows:
        raise ConfigError(
            f"{field}={row}: the post feature {model.post_feature!r} has the rows "
            f"1..{model.post_rows - 1}; choose one of {smallest}..{model.post_rows - 1}"
        )
