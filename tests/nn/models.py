"""A model with random parameters, and its logits as a function of its tokens."""

import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.config import ModelConfig
from ligr_jax.data.batch import Batch
from ligr_jax.nn.features import ActionTokens, ItemTokens
from ligr_jax.nn.ligr import LiGR


def random_params(config: ModelConfig, batch: Batch, scale: float = 0.3) -> Any:
    """Fresh parameters plus noise, so that none is zero; equal names get equal noise."""
    params = jax.jit(LiGR(config).init)(jax.random.key(0), batch)["params"]

    def noisy(path: Any, p: jax.Array) -> jax.Array:
        key = jax.random.key(zlib.crc32(jax.tree_util.keystr(path).encode()))
        return p + scale * jax.random.normal(key, p.shape)

    return jax.tree_util.tree_map_with_path(noisy, params)


def logits(config: ModelConfig, params: Any, batch: Batch) -> jax.Array:
    return jax.jit(LiGR(config).apply)({"params": params}, batch)


def logits_of_shifts(
    config: ModelConfig, params: Any, batch: Batch
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Logits [B, N, A] as a function of what is added to item and action tokens, [B, N, D] each."""

    def function(item: jax.Array, action: jax.Array) -> jax.Array:
        def shift(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            out = call(*args, **kwargs)
            if context.method_name == "__call__":
                if isinstance(context.module, ItemTokens):
                    return out + item
                if isinstance(context.module, ActionTokens):
                    return out + action
            return out

        with nn.intercept_methods(shift):
            return jnp.asarray(LiGR(config).apply({"params": params}, batch))

    return function
