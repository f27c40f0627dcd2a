"""Helpers of model tests: random parameters, logits, gradients, and Jacobians."""

import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ligr_jax.config import ModelConfig
from ligr_jax.data.batch import Batch
from ligr_jax.nn.candidate_tokens import CandidateTokens
from ligr_jax.nn.features import ActionTokens, ItemTokens
from ligr_jax.nn.models import make_model
from ligr_jax.ops.losses import binary_cross_entropy

_compiled: dict[tuple[str, str], Callable[..., Any]] = {}


def random_params(config: ModelConfig, batch: Batch, scale: float = 0.3) -> Any:
    """Return initial parameters plus noise, so that none is zero; equal names get equal noise."""
    shapes = jax.eval_shape(make_model(config).init, jax.random.key(0), batch)["params"]

    def noisy(path: Any, p: jax.ShapeDtypeStruct) -> jax.Array:
        name = jax.tree_util.keystr(path)
        noise = np.random.default_rng(zlib.crc32(name.encode())).normal(size=p.shape)
        wide = p.shape[-2] ** -0.5 if name.endswith("['kernel']") else "scale" in name
        values = wide * (noise if p.ndim > 1 else 1) + scale * noise
        return jnp.asarray(values.astype(p.dtype))  # cast by NumPy: no program for each shape

    return jax.tree_util.tree_map_with_path(noisy, shapes)


def logits(config: ModelConfig, params: Any, batch: Batch) -> jax.Array:
    return _once("logits", config, make_model(config).apply)({"params": params}, batch)


def value_and_gradient(
    config: ModelConfig, params: Any, batch: Batch
) -> tuple[tuple[jax.Array, jax.Array], Any]:
    """Return (cross-entropy summed over actions, logits), and the gradient of the former."""

    def loss(p: Any, b: Batch) -> tuple[jax.Array, jax.Array]:
        z = jnp.asarray(make_model(config).apply({"params": p}, b))
        total, weight = binary_cross_entropy(z, b.labels, b.weight)
        return (total / weight).sum(), z

    return _once("gradient", config, jax.value_and_grad(loss, has_aux=True))(params, batch)


class Reach(NamedTuple):
    """Logits, and absolute derivatives of z [B, N], a random combination of them over actions.

    What affects any logit affects z, and what is not finite in any is not finite in z.

    Attributes:
        logits: [B, N, A].
        items: |d z / d item token|, [B, N, B, N]; candidate tokens move with the item token.
        actions: |d z / d action token|, [B, N, B, N].
        params: |d z / d parameter|, summed over z; a tree like the parameters.
    """

    logits: np.ndarray
    items: np.ndarray
    actions: np.ndarray
    params: Any


def reach(config: ModelConfig, params: Any, batch: Batch) -> Reach:
    """Return logits and their derivatives by tokens and by parameters."""
    weights = np.random.default_rng(0).normal(size=len(config.actions))

    def combined(params: Any, item: jax.Array, action: jax.Array, batch: Batch) -> Any:
        def shift(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            out = call(*args, **kwargs)
            if context.method_name == "__call__":
                if isinstance(context.module, ItemTokens):
                    return out + item
                if isinstance(context.module, CandidateTokens):
                    return out + item[:, :, None]
                if isinstance(context.module, ActionTokens):
                    return out + action
            return out

        with nn.intercept_methods(shift):
            z = jnp.asarray(make_model(config).apply({"params": params}, batch))
        return z @ weights, z

    def derivatives(params: Any, batch: Batch) -> Reach:
        zero = jnp.zeros((*batch.member.shape, config.width))
        z, pull, z_BNA = jax.vjp(partial(combined, batch=batch), params, zero, zero, has_aux=True)
        units = jnp.eye(z.size).reshape(*z.shape, *z.shape)
        by_params, *by_tokens = jax.vmap(jax.vmap(pull))(units)
        items, actions = (jnp.abs(d).sum(-1) for d in by_tokens)
        return Reach(
            z_BNA, items, actions, jax.tree.map(lambda d: jnp.abs(d).sum((0, 1)), by_params)
        )

    return jax.device_get(_once("reach", config, derivatives)(params, batch))


def _once(what: str, config: ModelConfig, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` under jit, traced and compiled once per configuration and shape."""
    return _compiled.setdefault((what, repr(config)), jax.jit(function))
