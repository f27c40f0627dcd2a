"""RQ-VAE: gradients equal those of the formulas."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from ligr_jax.sid.config import SidConfig
from ligr_jax.sid.quantize import Quantized, quantize_residuals, straight_through
from ligr_jax.sid.rqvae import RQVAE, Output, flops_regularizer, loss_parts

B, W, D, N, K = 7, 5, 2, 3, 4
LINEAR: dict[str, Any] = {"levels": N, "codes": K, "latent": D, "hidden": (), "gamma": 0.0}
Tree = dict[str, Any]


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((B, W)).astype(np.float32)


@pytest.fixture(scope="module")
def params(x: np.ndarray) -> Tree:
    return jax.jit(RQVAE(SidConfig(**LINEAR), W).init)(jax.random.key(1), x)["params"]


def test_residuals_are_those_of_the_levels_before() -> None:
    rng = np.random.default_rng(2)
    z, books = rng.standard_normal((B, D)), rng.standard_normal((N, K, D))
    found = quantize_residuals(jnp.asarray(z), jnp.asarray(books))
    for row in range(B):
        left = z[row]
        for level in range(N):
            np.testing.assert_allclose(found.residuals[level, row], left, rtol=1e-5, atol=1e-6)
            code = ((left - books[level]) ** 2).sum(1).argmin()
            assert found.codes[row, level] == code
            left = left - books[level, code]


def test_the_decoders_gradient_reaches_the_latent_once() -> None:
    """A straight-through estimator at every level would count it N times."""
    z, books = jax.random.normal(jax.random.key(0), (B, D)), jnp.ones((N, K, D))
    slope = jnp.arange(B * D, dtype=jnp.float32).reshape(B, D)

    def decoded(z: jax.Array) -> jax.Array:
        return (slope * straight_through(z, quantize_residuals(z, books).chosen)).sum()

    np.testing.assert_array_equal(jax.grad(decoded)(z), slope)


def test_every_level_adds_to_the_commitment_gradient(x: np.ndarray, params: Tree) -> None:
    """The commitment gradient: 2 beta / B times the sum of all levels' r_(i-1) - e_i."""
    config = SidConfig(**LINEAR, beta=0.3)
    books = params["codebooks"]

    def loss(z: jax.Array) -> jax.Array:
        return loss_parts(config, books, x, Output(x, z, quantize_residuals(z, books)))[
            "quantization"
        ]

    z = jnp.asarray(x[:, :D])
    _, residuals, chosen = quantize_residuals(z, books)
    np.testing.assert_allclose(
        jax.grad(loss)(z), 2 * 0.3 / B * (residuals - chosen).sum(0), rtol=1e-5, atol=1e-7
    )


def surrogate(config: SidConfig, at: Tree, x: np.ndarray) -> Callable[[Tree], float]:
    """The loss in NumPy, float64, with everything behind a stop frozen at `at`: what differences
    of it say is what the straight-through gradients must be."""
    z0 = x @ at["encoder"]["kernel"] + at["encoder"]["bias"]
    codes = np.zeros((B, N), int)
    residuals, chosen = np.zeros((N, B, D)), np.zeros((N, B, D))
    left = z0
    for i, book in enumerate(at["codebooks"]):
        codes[:, i] = ((left[:, None] - book) ** 2).sum(2).argmin(1)
        residuals[i], chosen[i] = left, book[codes[:, i]]
        left = left - chosen[i]

    def loss(p: Tree) -> float:
        z = x @ p["encoder"]["kernel"] + p["encoder"]["bias"]
        decoded = z + (chosen.sum(0) - z0)
        x_hat = decoded @ p["decoder"]["kernel"] + p["decoder"]["bias"]
        e = np.stack([book[codes[:, i]] for i, book in enumerate(p["codebooks"])])
        before = np.cumsum(chosen, 0) - chosen
        if config.quantization == "sum":
            pulls = config.beta * ((z - e.sum(0)) ** 2).sum()
        else:
            pulls = ((residuals - e) ** 2).sum()
            pulls += config.beta * ((z - before - chosen) ** 2).sum()
        return float((((x - x_hat) ** 2).sum() + pulls) / B)

    return loss


@pytest.mark.parametrize("quantization", ["levels", "sum"])
def test_gradients_equal_differences_of_a_numpy_reference(
    x: np.ndarray, params: Tree, quantization: str
) -> None:
    config = SidConfig(**LINEAR, quantization=quantization)  # type: ignore[arg-type]
    model = RQVAE(config, W)

    def objective(p: Tree) -> jax.Array:
        out: Any = model.apply({"params": p}, x)
        return jnp.stack(list(loss_parts(config, p["codebooks"], x, out).values())).sum()

    gradient = jax.jit(jax.grad(objective))(params)
    at: Tree = {
        "codebooks": np.asarray(params["codebooks"], np.float64),
        **{
            name: {k: np.asarray(v, np.float64) for k, v in params[name]["Dense_0"].items()}
            for name in ("encoder", "decoder")
        },
    }
    loss = surrogate(config, at, x.astype(np.float64))
    np.testing.assert_allclose(objective(params), loss(at), rtol=1e-5)
    found: Tree = {
        "codebooks": gradient["codebooks"],
        **{name: gradient[name]["Dense_0"] for name in ("encoder", "decoder")},
    }
    for leaf, slope in zip(jax.tree.leaves(at), jax.tree.leaves(found)):
        numeric = np.zeros(leaf.shape)
        for place in np.ndindex(leaf.shape):
            kept, sides = leaf[place], []
            for step in (1e-6, -1e-6):
                leaf[place] = kept + step
                sides.append(loss(at))
            leaf[place] = kept
            numeric[place] = (sides[0] - sides[1]) / 2e-6
        np.testing.assert_allclose(slope, numeric, rtol=1e-3, atol=1e-4)


def test_flops_regularizer_is_smallest_for_uniform_use_and_has_a_gradient() -> None:
    rng = np.random.default_rng(3)
    same = jnp.ones((K, D))
    r = jnp.asarray(rng.standard_normal((B, D)), jnp.float32)
    assert flops_regularizer(r, same, 1.0) == pytest.approx(1 / K)
    apart = jnp.asarray([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 9.0]])
    even, uneven = jnp.tile(apart, (2, 1)), jnp.tile(apart[:1], (8, 1))
    noise = 0.1 * jnp.asarray(rng.standard_normal((8, D)), jnp.float32)
    assert flops_regularizer(even + noise, apart, 1.0) == pytest.approx(1 / K, abs=1e-3)
    assert flops_regularizer(uneven + noise, apart, 1.0) == pytest.approx(1.0, abs=1e-3)
    for seed in range(3):  # every residual on a code: distances of zero, but for rounding
        own = jnp.asarray(np.random.default_rng(seed).standard_normal((64, 6)), jnp.float32)
        assert flops_regularizer(own, own, 0.1) == pytest.approx(1 / 64, rel=0.2)
    books = jnp.asarray(rng.standard_normal((K, D)), jnp.float32)
    value = flops_regularizer(r, books, 1.0)
    assert 1 / K < value < 1
    for slope in jax.grad(flops_regularizer, argnums=(0, 1))(r, books, 1.0):
        assert np.abs(slope).max() > 1e-3


def test_the_regularizer_of_every_level_enters_the_loss(x: np.ndarray, params: Tree) -> None:
    config = SidConfig(**{**LINEAR, "gamma": 7.0}, temperature=0.5)
    books, z = np.asarray(params["codebooks"]), x[:, :D]
    out = Output(
        jnp.asarray(x), jnp.asarray(z), quantize_residuals(jnp.asarray(z), jnp.asarray(books))
    )
    total = 0.0
    for residual, book in zip(np.asarray(out.quantized.residuals), books):
        distances = ((residual[:, None] - book) ** 2).sum(2)
        p = softmax(-distances / (0.5 * distances.min(1).mean()), axis=1)
        total += (p.mean(0) ** 2).sum()
    found = loss_parts(config, jnp.asarray(books), jnp.asarray(x), out)
    assert found["flops"] == pytest.approx(7 * total, rel=1e-4)


def test_reset_uses_residuals_of_the_same_level() -> None:
    from ligr_jax.sid.reset import clear_moments, reset, usage

    books = jnp.full((2, 3, D), 50.0)
    residuals = jnp.arange(2 * B * D, dtype=jnp.float32).reshape(2, B, D)
    codes = jnp.asarray([[0, 1]] * B, jnp.int32)
    np.testing.assert_array_equal(usage(codes, 3), [[3, 0, 0], [0, 3, 0]])
    dead = usage(codes, 3) == 0
    quantized = Quantized(codes, residuals, residuals)
    fresh = np.asarray(reset(books, dead, quantized, jax.random.key(0)))
    for level in range(2):
        rows = {tuple(row) for row in np.asarray(residuals[level])}
        taken = [tuple(row) for row in fresh[level][np.asarray(dead[level])]]
        assert set(taken) <= rows
        assert len(set(taken)) == 2  # no residual twice
    np.testing.assert_array_equal(fresh[~np.asarray(dead)], 50)
    moments = ({"mu": {"codebooks": jnp.ones((2, 3, D)), "kernel": jnp.ones(4)}}, jnp.array(9))
    cleared, count = clear_moments(moments, dead)
    np.testing.assert_array_equal(cleared["mu"]["codebooks"][..., 0], ~dead)
    assert cleared["mu"]["kernel"].all()
    assert count == 9
