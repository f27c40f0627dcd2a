"""Networks per token equal one network for each token; token mixing is a permutation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ligr_jax.nn.per_token import PerTokenGLU, PerTokenMLP, mix_tokens

pytestmark = pytest.mark.usefixtures("quick_keys")

M, D, F = 3, 48, 96
MODULES: dict[str, Any] = {
    "gelu": PerTokenMLP(F),
    "swiglu": PerTokenGLU(F, down_init=0.01),
}


def separate(name: str, x: Any, params: Any) -> jax.Array:
    """Return [..., M, D], from one product for each token."""

    def linear(layer: str, y: jax.Array, m: int) -> jax.Array:
        p = params[layer]
        return y @ p["kernel"][m] + p["bias"][m]

    outputs = []
    for m in range(M):
        hidden = linear("up", x[..., m, :], m)
        hidden = nn.silu(hidden) * linear("value", x[..., m, :], m) if name == "swiglu" else hidden
        outputs.append(linear("down", nn.gelu(hidden) if name == "gelu" else hidden, m))
    return jnp.stack(outputs, -2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", MODULES)
def test_a_network_per_token_is_one_network_for_each_token(name: str, dtype: str) -> None:
    """Outputs and all gradients; bfloat16 within its rounding."""
    module = MODULES[name].clone(dtype=jnp.dtype(dtype))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 2, M, D)).astype(np.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    params = jax.tree.map(
        lambda p: (rng.normal(size=p.shape) * p.shape[-2] ** -0.5).astype(np.float32), shapes
    )

    def graded(fn: Any) -> Any:
        def loss(x: Any, p: Any) -> Any:
            y = fn(x, p).astype(jnp.float32)
            return (y**2).sum(), y

        return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(x, params)

    ours = graded(lambda x, p: module.apply({"params": p}, x))
    expected = graded(lambda x, p: separate(name, x, p))
    rtol = 1e-5 if dtype == "float32" else 0.03
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(b).max())


@pytest.mark.parametrize("name", MODULES)
def test_initial_deviations_have_the_fan_in_of_one_token(name: str) -> None:
    module = MODULES[name]
    params = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, M, D)))["params"]
    for layer, p in params.items():
        fan_in, factor = (F, getattr(module, "down_init", 1.0)) if layer == "down" else (D, 1.0)
        assert p["kernel"].shape[:2] == (M, fan_in)
        assert np.std(p["kernel"]) == pytest.approx(factor * fan_in**-0.5, rel=0.03)
        assert not p["bias"].any()


def test_token_mixing_is_its_own_inverse_and_its_sum_with_the_input_loses_rank() -> None:
    m, d = 4, 8
    x = np.arange(m * d, dtype=np.float32).reshape(1, m, d)
    mixed = np.asarray(mix_tokens(x))
    pieces = x.reshape(m, m, d // m)
    np.testing.assert_array_equal(mixed[0, 1], np.concatenate([pieces[t, 1] for t in range(m)]))
    np.testing.assert_array_equal(mix_tokens(mixed), x)
    basis = np.eye(m * d, dtype=np.float32).reshape(-1, m, d)
    symmetrized = (basis + mix_tokens(basis)).reshape(m * d, m * d)
    assert np.linalg.matrix_rank(symmetrized) == d * (m + 1) // 2
