"""Item tokens from features, and action tokens from the member's response (LiGR 3.2)."""

from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ligr_jax.config import ConfigError, Feature, ModelConfig
from ligr_jax.data.batch import Batch
from ligr_jax.data.schema import UNKNOWN
from ligr_jax.nn.linear import Linear
from ligr_jax.nn.mup import mup_scale

Embedded = Mapping[str, jax.Array]  # for each feature with a table, its embeddings [B, N, E]


def history_labels(config: ModelConfig, batch: Batch) -> jax.Array:
    """Return the labels that a history shows, int8 [B, N, A]: those of late actions are unknown."""
    late = np.array([action in config.late_actions for action in config.actions])
    return jnp.where(late, np.int8(UNKNOWN), batch.labels) if late.any() else batch.labels


def feature_vector(
    config: ModelConfig, batch: Batch, embedded: Embedded, outcome: bool
) -> jax.Array | None:
    """Concatenate the item features, or the outcome features.

    A table contributes E columns, a vector W, and a number two: its normalized value, and whether
    it is missing.

    Args:
        config: declares the features.
        batch: the impressions.
        embedded: embeddings of the features that have a table.
        outcome: whether to take the outcome features instead of the item features.

    Returns:
        float32 [B, N, sum of widths]; None if no such feature is declared.
    """
    parts = feature_parts(config, batch, embedded, outcome)
    return jnp.concatenate(list(parts.values()), axis=-1) if parts else None


def feature_parts(
    config: ModelConfig, batch: Batch, embedded: Embedded, outcome: bool
) -> dict[str, jax.Array]:
    """Return the parts of `feature_vector`, before they are concatenated.

    Arguments are those of `feature_vector`.

    Returns:
        float32 [B, N, width] by feature name, in sorted order.
    """
    names = [n for n, f in config.features.items() if (f.outcome if outcome else f.is_item)]
    return parts_of(names, config, batch, embedded)


def parts_of(
    names: Iterable[str], config: ModelConfig, batch: Batch, embedded: Embedded
) -> dict[str, jax.Array]:
    """Return the values of features, float32 [B, N, width] by name, in sorted order.

    Args:
        names: names of the features.
        config: declares the features.
        batch: the impressions.
        embedded: embeddings of the features that have a table.
    """
    parts = {}
    for name in sorted(names):
        feature = config.features[name]
        if feature.has_table:
            parts[name] = embedded[name]
        elif feature.kind == "vector":
            parts[name] = batch.vectors[name].astype(jnp.float32)
        else:
            value = batch.numeric[name]
            missing = jnp.isnan(value)
            parts[name] = jnp.stack([jnp.where(missing, 0.0, value), missing], axis=-1)
    return parts


def feature_widths(config: ModelConfig, outcome: bool) -> list[int]:
    """Return the width of each feature in `feature_vector`, in the order of declaration."""
    features = [f for f in config.features.values() if (f.outcome if outcome else f.is_item)]
    return [feature_width(config, f) for f in features]


def feature_width(config: ModelConfig, feature: Feature) -> int:
    """Return the number of columns of a feature in `feature_vector`."""
    if feature.has_table:
        return feature.width or config.table_width
    return feature.width if feature.kind == "vector" else 2


class ItemTokens(nn.Module):
    """x_i: a projection of the concatenated item features to width D."""

    config: ModelConfig

    @nn.compact
    def __call__(self, batch: Batch, embedded: Embedded) -> jax.Array:
        """Return item tokens [B, N, D].

        Raises:
            ValueError: the configuration declares no item feature.
        """
        c = self.config
        features = feature_vector(c, batch, embedded, outcome=False)
        if features is None:
            raise ConfigError("model.features declares no item feature; declare at least one")
        return Linear(c.width, use_bias=True, dtype=jnp.dtype(c.dtype), name="projection")(features)


class ActionTokens(nn.Module):
    """a_i: the sum of the embeddings of the actions taken, or the embedding of "no action".

    An action that was not recorded, or that is known late, adds an "unknown" embedding of its own;
    it does not count as not taken. Outcomes (dwell, play time) are projected and added.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, batch: Batch, embedded: Embedded) -> jax.Array:
        """Return action tokens [B, N, D]."""
        c = self.config
        a = len(c.actions)
        dtype = jnp.dtype(c.dtype)
        labels_BNA = history_labels(c, batch)
        taken = labels_BNA > 0
        unknown = labels_BNA < 0
        nothing = jnp.all(labels_BNA == 0, axis=-1, keepdims=True)
        # One column per embedding: A actions taken, A actions unknown, and "no action".
        kinds = jnp.concatenate([taken, unknown, nothing], axis=-1).astype(dtype)
        init = nn.initializers.normal(stddev=(c.width / mup_scale(c).width) ** -0.5)
        token = Linear(c.width, dtype=dtype, kernel_init=init, name="actions")(kinds)
        assert kinds.shape[-1] == 2 * a + 1
        outcomes = feature_vector(c, batch, embedded, outcome=True)
        if outcomes is not None:
            token += Linear(c.width, dtype=dtype, name="projection")(outcomes)
        return token
