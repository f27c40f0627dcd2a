"""What a model's last layers read: the features of a Bayesian last layer (`policy.thompson`)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.data.batch import Batch


def last_layer_features(model: nn.Module, variables: Any, batch: Batch) -> jax.Array:
    """phi, float32 [B, N, P]: what the layers named `logits` read, side by side.

    An action's logit is phi times its column of their kernels, one below the other, plus their
    biases: LiGR has two, of the historical and of the set-wise stack, so that P = 2 D.

    Args:
        variables: of the model: its parameters, and statistics where it has any.

    Raises:
        ValueError: heads of other kinds, whose actions have layers of their own.
    """
    read: list[jax.Array] = []

    def note(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if context.module.name == "logits" and context.method_name == "__call__":
            read.append(args[0])
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        model.apply(variables, batch)
    if not read:
        raise ValueError(
            "the model has no layer `logits` that all actions share; train one with "
            "model.head.kind=linear"
        )
    return jnp.concatenate(read, axis=-1).astype(jnp.float32)
