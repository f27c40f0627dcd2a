"""Laws of HSTU's layer: it equals its published equations, in NumPy and float64."""

from typing import Any

import jax
import numpy as np
import pytest
from scipy.special import expit

from ligr_jax.config import ModelConfig
from ligr_jax.nn.hstu import TransductionUnit
from ligr_jax.ops.attention import bucket_distance
from ligr_jax.ops.masks import Mask, dense_mask, history_mask, session_mask
from tests.batches import model_config, random_batch
from tests.nn.test_blocks import norm

BATCH = random_batch([[[2, 3, 1]], [[1, 2], [3]]], 6)


def silu(x: np.ndarray) -> np.ndarray:
    return x * expit(x)


def unit(
    x: np.ndarray, p: Any, allowed: np.ndarray, rab: np.ndarray | float, heads: int, n: Any
) -> np.ndarray:
    """Return equations 1 to 3 of Zhai et al. 2024; sums over keys are divided by n."""
    b, t, d = x.shape
    projected = silu(norm(x, p["norm"]) @ p["uvqk"]["kernel"] + p["uvqk"]["bias"])
    u, v, q, k = np.split(projected, 4, axis=-1)
    v, q, k = (np.moveaxis(a.reshape(b, t, heads, -1), 2, 1) for a in (v, q, k))
    weights = silu(q @ k.swapaxes(-1, -2) + rab) / n * allowed[:, None]
    mixed = np.moveaxis(weights @ v, 1, 2).reshape(b, t, d)
    return x + (norm(mixed, p["mixed_norm"]) * u) @ p["out"]["kernel"] + p["out"]["bias"]


def parameters_of(config: ModelConfig, x: np.ndarray, mask: Mask, place: Any) -> Any:
    init = TransductionUnit(config).init
    shapes = jax.eval_shape(init, jax.random.key(0), x, mask, place, True)["params"]
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda s: 0.4 * rng.normal(size=s.shape).astype(np.float32), shapes)


@pytest.mark.parametrize("implementation", ["dense", "blocked"])
def test_a_layer_equals_its_published_equations_under_our_masks(implementation: str) -> None:
    config = model_config(kind="hstu", implementation=implementation)
    history = (history_mask(BATCH.member, BATCH.session), np.repeat(BATCH.session, 2, axis=1), 12)
    setwise = (session_mask(BATCH.member, BATCH.session), None, 6)
    apply = jax.jit(TransductionUnit(config).apply, static_argnums=4)
    for mask, place, length in (history, setwise):
        x = np.random.default_rng(0).normal(size=(2, length, config.width)).astype(np.float32)
        params = parameters_of(config, x, mask, place)
        out, _ = apply({"params": params}, x, mask, place, True)
        exact = jax.tree.map(lambda p: p.astype(np.float64), params)
        rab: np.ndarray | float = 0.0
        if place is not None:
            apart = np.abs(place[:, :, None] - place[:, None, :])
            rab = np.moveaxis(exact["bias"][:, np.asarray(bucket_distance(apart, 32))], 0, 1)
        allowed = np.asarray(dense_mask(mask))
        keys = allowed.sum(-1)[:, None, :, None]
        wanted = unit(x.astype(np.float64), exact, allowed, rab, config.heads, keys)
        np.testing.assert_allclose(out, wanted, atol=1e-4, rtol=1e-4)
