"""Tokens from features: what an impression is, and what the member did with it (LiGR 3.2)."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.config import ConfigError, Feature, ModelConfig
from ligr_jax.data.batch import Batch
from ligr_jax.nn.linear import Linear
from ligr_jax.nn.mup import mup_scale

Embedded = Mapping[str, jax.Array]  # float32 [B, N, E] by feature, from `tables`


def feature_vector(
    config: ModelConfig, batch: Batch, embedded: Embedded, outcome: bool
) -> jax.Array | None:
    """Concatenates the item features, or the outcome features: float32 [B, N, sum of widths].

    Tables give E numbers, vectors W, a number two: its normalized value, and whether it is missing.
    None where no such feature is declared.
    """
    parts = feature_parts(config, batch, embedded, outcome)
    return jnp.concatenate(list(parts.values()), axis=-1) if parts else None


def feature_parts(
    config: ModelConfig, batch: Batch, embedded: Embedded, outcome: bool
) -> dict[str, jax.Array]:
    """The parts of `feature_vector` by feature, in sorted order: float32 [B, N, width] each."""
    parts = {}
    for name, feature in sorted(config.features.items()):
        if feature.outcome != outcome:
            continue
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
    """Numbers of each feature in `feature_vector`."""
    return [feature_width(config, f) for f in config.features.values() if f.outcome == outcome]


def feature_width(config: ModelConfig, feature: Feature) -> int:
    """Numbers of one feature."""
    if feature.has_table:
        return feature.width or config.table_width
    return feature.width if feature.kind == "vector" else 2


class ItemTokens(nn.Module):
    """x_i: one projection of the concatenated item features to width D."""

    config: ModelConfig

    @nn.compact
    def __call__(self, batch: Batch, embedded: Embedded) -> jax.Array:
        """Returns [B, N, D]."""
        c = self.config
        features = feature_vector(c, batch, embedded, outcome=False)
        if features is None:
            raise ConfigError("model.features declares no item feature; declare at least one")
        return Linear(c.width, use_bias=True, dtype=jnp.dtype(c.dtype), name="projection")(features)


class ActionTokens(nn.Module):
    """a_i: the sum of the embeddings of the actions taken, or of "no action" where none was.

    An action nobody recorded adds its own "unknown" embedding: it is not a zero. Outcomes (dwell,
    play time) are projected and added.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, batch: Batch, embedded: Embedded) -> jax.Array:
        """Returns [B, N, D]."""
        c = self.config
        a, dtype = len(c.actions), jnp.dtype(c.dtype)
        taken = batch.labels > 0
        unknown = batch.labels < 0
        nothing = jnp.all(batch.labels == 0, axis=-1, keepdims=True)
        kinds = jnp.concatenate([taken, unknown, nothing], axis=-1).astype(dtype)
        init = nn.initializers.normal(stddev=(c.width / mup_scale(c).width) ** -0.5)
        token = Linear(c.width, dtype=dtype, kernel_init=init, name="actions")(kinds)
        assert kinds.shape[-1] == 2 * a + 1
        outcomes = feature_vector(c, batch, embedded, outcome=True)
        if outcomes is not None:
            token += Linear(c.width, dtype=dtype, name="projection")(outcomes)
        return token
