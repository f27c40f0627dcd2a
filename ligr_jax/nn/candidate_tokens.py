"""Candidate tokens: what is known of an impression before its session starts, as M tokens.

    auto      c_im = W_m [all item features] + b_m               (OneTrans' auto-split)
    groups    c_im = W_m [the features of group m] + b_m         (RankMixer)
    chunk     c_im = W_m [piece m of all item features] + b_m    pieces of equal width, zero-padded

In TokenMixer-Large, a global token with a projection of all item features precedes these tokens.

With `normalize_tokens`, each token then passes LayerNorm and SiLU, with a gain and a bias of its
own, as in the public codes of UniRank and TAAC. Features are concatenated in the order of their
names, except within the groups of `groups`.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.config import ConfigError, ModelConfig
from ligr_jax.data.batch import Batch
from ligr_jax.nn.features import Embedded, feature_parts, feature_width
from ligr_jax.nn.linear import Linear

_EPSILON = 1e-5  # of the public codes


class CandidateTokens(nn.Module):
    """M tokens of every impression, from its item features."""

    config: ModelConfig

    @nn.compact
    def __call__(self, batch: Batch, embedded: Embedded) -> jax.Array:
        """Return candidate tokens [B, N, M, D], without the history token of models that have one.

        Args:
            batch: the impressions.
            embedded: embeddings of the features that have a table.

        Raises:
            ConfigError: the configuration declares no item feature.
        """
        c = self.config
        dtype = jnp.dtype(c.dtype)
        parts = feature_parts(c, batch, embedded, outcome=False)
        inputs = token_inputs(c, parts)
        if c.streams.tokenizer == "auto":
            tokens = Linear(c.feature_tokens * c.width, use_bias=True, dtype=dtype, name="all")
            c_BNMD = tokens(inputs[0]).reshape(*batch.member.shape, c.feature_tokens, c.width)
        else:
            tokens_BND = [
                Linear(c.width, use_bias=True, dtype=dtype, name=f"token_{m}")(part)
                for m, part in enumerate(inputs)
            ]
            c_BNMD = jnp.stack(tokens_BND, axis=2)
        if c.has_global_token:
            of_all = Linear(c.width, use_bias=True, dtype=dtype, name="global")
            global_BND = of_all(jnp.concatenate(list(parts.values()), axis=-1))
            c_BNMD = jnp.concatenate([global_BND[:, :, None], c_BNMD], axis=2)
        if not c.streams.normalize_tokens:
            return c_BNMD
        norm = nn.LayerNorm(
            epsilon=_EPSILON, use_scale=False, use_bias=False, dtype=dtype, name="norm"
        )
        shape = c_BNMD.shape[2:]
        gain = self.param("gain", nn.initializers.ones_init(), shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), shape, jnp.float32)
        return nn.silu(norm(c_BNMD) * gain.astype(dtype) + bias.astype(dtype))


def token_inputs(config: ModelConfig, parts: dict[str, jax.Array]) -> list[jax.Array]:
    """Return the input of every token, [B, N, width] each; a single one for `tokenizer=auto`.

    Args:
        config: the model.
        parts: item features by name, [B, N, width] each, in sorted order.

    Raises:
        ConfigError: there is no item feature.
    """
    if not parts:
        raise ConfigError("model.features declares no item feature; declare at least one")
    streams = config.streams
    if streams.tokenizer == "groups":
        return [jnp.concatenate([parts[n] for n in g], -1) for g in streams.grouped_features]
    joined = jnp.concatenate(list(parts.values()), axis=-1)
    if streams.tokenizer == "auto":
        return [joined]
    width = _piece(config)
    missing = config.feature_tokens * width - joined.shape[-1]
    padded = jnp.pad(joined, ((0, 0), (0, 0), (0, missing)))
    return jnp.split(padded, config.feature_tokens, axis=-1)


def candidate_token_flops(config: ModelConfig) -> int:
    """Return the FLOPs of the candidate tokens of one impression."""
    if config.streams.tokenizer == "groups":
        inputs = _item_width(config)
    elif config.streams.tokenizer == "chunk":
        inputs = config.feature_tokens * _piece(config)
    else:
        inputs = config.feature_tokens * _item_width(config)
    inputs += _item_width(config) * config.has_global_token
    return 2 * inputs * config.width


def _item_width(config: ModelConfig) -> int:
    return sum(feature_width(config, f) for f in config.features.values() if f.is_item)


def _piece(config: ModelConfig) -> int:
    """Return the width of a piece of `tokenizer=chunk`."""
    return -(-_item_width(config) // config.feature_tokens)
