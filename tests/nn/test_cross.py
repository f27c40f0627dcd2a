"""Laws of cross layers: they equal their equations, written in NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ligr_jax.nn.cross import AttentionCross, LowRankCross, ResidualCross

D, R = 7, 3
RNG = np.random.default_rng(0)
X0, X = (RNG.normal(size=(4, 5, D)).astype(np.float32) for _ in range(2))


def random_params_of(module: nn.Module, seed: int = 0) -> Any:
    """Return initial parameters plus noise, so that biases and temperatures are not trivial."""
    params = module.init(jax.random.key(seed), X0, X)["params"]
    noise = np.random.default_rng(seed)
    return jax.tree.map(lambda p: p + 0.3 * noise.normal(size=p.shape).astype(np.float32), params)


def product(x0: np.ndarray, low: np.ndarray, u: Any) -> np.ndarray:
    return x0 * (low @ u["kernel"] + u["bias"])


def attention(p: Any, x0: np.ndarray, x: np.ndarray, tau: float) -> np.ndarray:
    """Return x0 * (U (S v) + b), computed example by example."""
    out = np.zeros_like(x0)
    for i in np.ndindex(x.shape[:-1]):
        q, k, v = (x[i] @ p[name]["kernel"] for name in "qkv")
        e = np.exp(np.outer(q, k) / tau)
        s = e / e.sum(1, keepdims=True)
        out[i] = product(x0[i], s @ v, p["u"])
    return out


def test_low_rank_cross_equals_its_equation() -> None:
    p = random_params_of(LowRankCross(R))
    expected = product(X0, X @ p["v"]["kernel"], p["u"]) + X
    np.testing.assert_allclose(LowRankCross(R).apply({"params": p}, X0, X), expected, atol=1e-5)


@pytest.mark.parametrize("learned", [True, False])
def test_attention_mixes_rank_channels_by_its_equation(learned: bool) -> None:
    module = AttentionCross(R, temperature=1.7, learned=learned)
    p = random_params_of(module)
    assert ("log_temperature" in p) == learned
    tau = float(np.exp(p["log_temperature"])) if learned else 1.7
    expected = attention(p, X0, X, tau) + X
    np.testing.assert_allclose(module.apply({"params": p}, X0, X), expected, atol=1e-5)


def test_with_the_identity_as_scores_it_is_the_low_rank_cross() -> None:
    module = AttentionCross(R, learned=False, scores=lambda q, k, tau: jnp.eye(R))
    p = random_params_of(module)
    plain = LowRankCross(R).apply({"params": {"v": p["v"], "u": p["u"]}}, X0, X)
    np.testing.assert_allclose(module.apply({"params": p}, X0, X), plain, atol=1e-6)


def test_residual_cross_adds_both_products_to_one_skip() -> None:
    module = ResidualCross(R)
    p = random_params_of(module)
    tau = float(np.exp(p["attention"]["log_temperature"]))
    plain = product(X0, X @ p["cross"]["v"]["kernel"], p["cross"]["u"])
    expected = plain + attention(p["attention"], X0, X, tau) + X
    np.testing.assert_allclose(module.apply({"params": p}, X0, X), expected, atol=1e-5)


def test_in_bfloat16_the_skip_is_rounded_twice_at_most() -> None:
    """Each added product rounds once; there is no second x that is added and subtracted again."""
    rng = np.random.default_rng(0)
    x0, x = (jnp.asarray(rng.uniform(1, 1.2, (500, D)), jnp.bfloat16) for _ in range(2))
    exact, short = ResidualCross(R), ResidualCross(R, dtype=jnp.dtype("bfloat16"))
    p = jax.tree.map(lambda p: p / 4, random_params_of(exact))
    given = np.asarray(short.apply({"params": p}, x0, x), np.float32)
    wanted = np.asarray(exact.apply({"params": p}, *(v.astype(jnp.float32) for v in (x0, x))))
    assert np.abs(given - wanted).max() < 1.2 * 2**-7


def test_no_example_reaches_another() -> None:
    module = ResidualCross(R)
    p = random_params_of(module)
    both = jax.jacrev(lambda x: module.apply({"params": p}, X0[0], x))(X[0])  # [5, D, 5, D]
    reach = np.abs(np.asarray(both)).sum((1, 3))
    np.testing.assert_array_equal(reach > 0, np.eye(5, dtype=bool))
