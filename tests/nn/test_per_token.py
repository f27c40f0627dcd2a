"""Laws of per-token linear maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ligr_jax.nn.per_token import PerTokenLinear

pytestmark = pytest.mark.usefixtures("quick_keys")


def test_each_token_has_its_matrix_in_both_types() -> None:
    """Forward and backward, against NumPy: to rounding in float32, to one percent in bfloat16."""
    rng = np.random.default_rng(0)
    x, g = (rng.normal(size=(4, 5, 3, width)).astype(np.float32) for width in (8, 16))
    kernel = rng.normal(size=(3, 8, 16)).astype(np.float32)
    expected = [np.einsum("bnmd,mdf->bnmf", x, kernel)]
    expected += [np.einsum("bnmf,mdf->bnmd", g, kernel), np.einsum("bnmd,bnmf->mdf", x, g)]
    for dtype, tolerance in (("float32", 1e-5), ("bfloat16", 1e-2)):
        ours = jax.jit(product_and_gradients, static_argnums=3)(x, kernel, g, dtype)
        for y, wanted in zip(ours, expected):
            atol = tolerance * np.abs(wanted).max()
            np.testing.assert_allclose(np.asarray(y, np.float32), wanted, rtol=0, atol=atol)


def product_and_gradients(
    x: jax.Array, kernel: jax.Array, g: jax.Array, dtype: str
) -> list[jax.Array]:
    module = PerTokenLinear(kernel.shape[-1], dtype=jnp.dtype(dtype))

    def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return module.apply({"params": {"kernel": kernel}}, x)

    y, pull = jax.vjp(product, x, kernel)
    return [y, *pull(g.astype(y.dtype))]


def test_the_fan_in_is_that_of_one_token() -> None:
    params = jax.jit(PerTokenLinear(64).init)(jax.random.key(0), jnp.ones((1, 8, 32)))["params"]
    assert params["kernel"].shape == (8, 32, 64)
    assert np.std(params["kernel"]) == pytest.approx(32**-0.5, rel=0.05)
