"""Laws of the linear map."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ligr_jax.nn.linear import Linear
from ligr_jax.nn.mlp import MLP


def test_bfloat16_rule_has_the_gradients_of_float32_within_rounding() -> None:
    rng = np.random.default_rng(0)
    x, target = (jnp.asarray(rng.normal(size=(4, 6, n)), jnp.float32) for n in (32, 16))
    exact, short = (Linear(16, use_bias=True, dtype=jnp.dtype(d)) for d in ("float32", "bfloat16"))
    params = exact.init(jax.random.key(0), x)
    results = []
    for layer in (exact, short):

        def loss(p: object, x: jax.Array, layer: Linear = layer) -> jax.Array:
            return jnp.sum(jnp.asarray(layer.apply(p, x), jnp.float32) * target)

        results.append(jax.value_and_grad(loss, argnums=(0, 1))(params, x))
    for a, b in zip(*map(jax.tree.leaves, results)):
        assert b.dtype == jnp.float32
        assert np.linalg.norm(a - b) < 0.01 * np.linalg.norm(a)


def test_gradients_of_biases_are_summed_in_float32() -> None:
    """Summed in bfloat16 over 5,000 rows, they would be off by a percent and more."""
    x = np.random.default_rng(0).normal(size=(5000, 8)).astype(np.float32)
    module = MLP((8, 8, 4))
    params = module.init(jax.random.key(0), x)

    def gradient(dtype: str) -> Any:
        apply = module.clone(dtype=jnp.dtype(dtype)).apply
        return jax.jit(jax.grad(lambda p: jnp.asarray(apply(p, x), jnp.float32).sum()))(params)

    for a, b in zip(*(jax.tree.leaves(gradient(dtype)) for dtype in ("float32", "bfloat16"))):
        assert np.linalg.norm(a - b) < 0.006 * np.linalg.norm(a)


def test_bfloat16_products_accumulate_in_float32() -> None:
    """In bfloat16, a sum of 4,096 ones would stop at 256, forward and backward."""
    x, layer = jnp.ones((4096, 1), jnp.bfloat16), Linear(4096, dtype=jnp.dtype("bfloat16"))
    params = {"params": {"kernel": jnp.ones((1, 4096))}}
    y, pull = jax.vjp(layer.apply, params, x)
    gradient_of_params, gradient_of_x = pull(jnp.ones_like(y))
    assert (gradient_of_params["params"]["kernel"] == 4096).all()
    assert (gradient_of_x == 4096).all()
    summed = Linear(1, dtype=jnp.dtype("bfloat16")).apply(
        {"params": {"kernel": jnp.ones((4096, 1))}}, jnp.ones((1, 4096))
    )
    assert summed == 4096
