"""Inputs of a model's last layers: features of a Bayesian last layer (`policy.thompson`)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.data.batch import Batch


def last_layer_features(model: nn.Module, variables: Any, batch: Batch) -> jax.Array:
    """Return phi, float32 [B, N, P]: the concatenated inputs of the layers named `logits`.

    The logit of an action is phi times its column of the stacked kernels, plus the biases. LiGR has
    two such layers, one for each of its stacks, so P = 2 D.

    Args:
        model: the model.
        variables: its parameters, and batch statistics if it has any.
        batch: impressions to compute features for.

    Raises:
        ValueError: the model has a head of another kind, whose actions have separate layers, or
            several layers for each action.
    """
    config = model.config
    if config.post_feature or config.head.cross_layers:
        raise ValueError(
            "the logits are not one layer's: the model has a feature with post=true, or "
            f"model.head.cross_layers={config.head.cross_layers}; train one without"
        )
    inputs: list[jax.Array] = []

    def note(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if context.module.name == "logits" and context.method_name == "__call__":
            inputs.append(args[0])
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        model.apply(variables, batch)
    if not inputs:
        raise ValueError(
            "the model has no layer `logits` that all actions share; train one with "
            "model.head.kind=linear"
        )
    return jnp.concatenate(inputs, axis=-1).astype(jnp.float32)
