"""What heads read in addition to a token: late features (Feed-SR), a post-scoring one (CADET).

No token has these features, so they reach the logits of their own impression alone.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ligr_jax.config import ModelConfig
from ligr_jax.data.batch import Batch
from ligr_jax.nn.features import Embedded, feature_width, parts_of


class HeadInputs(NamedTuple):
    """Inputs of the heads of impressions [B, N], in addition to tokens.

    late_BNU: float32 [B, N, U], the late features; None without any.
    post: int32 [B, N], row of the post feature, whose output layers give the logits; 0 if its value
        is missing. None without such a feature.
    """

    late_BNU: jax.Array | None = None
    post: jax.Array | None = None


NO_INPUTS = HeadInputs()


def head_inputs(config: ModelConfig, batch: Batch, embedded: Embedded) -> HeadInputs:
    """Return the inputs of `Heads` in addition to the token, of every impression of a batch.

    Args:
        config: declares the features.
        batch: the impressions.
        embedded: embeddings of the features that have a table.
    """
    names = [name for name, feature in config.features.items() if feature.late]
    parts = parts_of(names, config, batch, embedded)
    return HeadInputs(
        late_BNU=jnp.concatenate(list(parts.values()), axis=-1) if parts else None,
        post=jnp.asarray(batch.ids[config.post_feature]) if config.post_feature else None,
    )


def late_width(config: ModelConfig) -> int:
    """Return U, the number of columns of the late features."""
    return sum(feature_width(config, f) for f in config.features.values() if f.late)


def require_inputs(config: ModelConfig, inputs: HeadInputs) -> None:
    """Raise ValueError if a kind of model does not give its heads what the features declare."""
    absent = [
        name
        for name, value, declared in (
            ("late", inputs.late_BNU, late_width(config) > 0),
            ("post", inputs.post, bool(config.post_feature)),
        )
        if declared and value is None
    ]
    if absent:
        raise ValueError(
            f"model.kind={config.kind} gives its heads no {' and '.join(absent)} features; call "
            "the heads with head_inputs(config, batch, embedded)"
        )


def with_late(x: jax.Array, inputs: HeadInputs) -> jax.Array:
    """Return a token [..., D] followed by the late features, float32 [..., D + U]."""
    if inputs.late_BNU is None:
        return x
    return jnp.concatenate([x.astype(jnp.float32), inputs.late_BNU], axis=-1)
