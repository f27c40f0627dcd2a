"""Laws of the history encoder: its equations in NumPy, and what an impression depends on."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from ligr_jax.nn.transact import HistoryEncoder
from ligr_jax.ops.windows import Windows, history_windows
from tests.batches import random_batch

N, L, I, J = 12, 6, 3, 2
D = 2 * I + J
BATCH = random_batch([[[2, 3, 1, 2], [1, 2]], [[3, 1, 2, 2, 4]], []], N)
RNG = np.random.default_rng(0)
ITEMS, ACTIONS = (RNG.normal(size=(3, N, w)).astype(np.float32) for w in (I, J))
MODULE = HistoryEncoder(heads=2)
STEPS = np.concatenate([ITEMS, ACTIONS], -1)
WINDOWS = history_windows(BATCH.member, BATCH.session, L)


@pytest.fixture(scope="module")
def params() -> Any:
    fresh = jax.jit(MODULE.init)(jax.random.key(0), ITEMS, STEPS, WINDOWS)["params"]
    return jax.tree.map(
        lambda p: np.asarray(p) + 0.2 * RNG.normal(size=p.shape).astype(np.float32), fresh
    )


def norm(p: Any, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def encoded(params: Any, h: np.ndarray) -> np.ndarray:
    """Apply two post-norm layers to the steps of one window, [steps, D]."""
    for i in range(2):
        p = params[f"layer_{i}"]
        q, k, v = (x.reshape(-1, 2, D // 2) for x in np.split(h @ p["qkv"]["kernel"], 3, -1))
        weights = softmax(np.einsum("THK,SHK->HTS", q, k) / np.sqrt(D / 2), axis=-1)
        out = np.einsum("HTS,SHK->THK", weights, v).reshape(-1, D) @ p["out"]["kernel"]
        h = norm(p["attention_norm"], h + out)
        up = np.maximum(h @ p["up"]["kernel"] + p["up"]["bias"], 0)
        h = norm(p["ffn_norm"], h + up @ p["down"]["kernel"] + p["down"]["bias"])
    return h


def test_it_encodes_each_window_and_returns_the_maximum_and_the_last_five_steps(
    params: Any,
) -> None:
    features = np.asarray(jax.jit(MODULE.apply)({"params": params}, ITEMS, STEPS, WINDOWS))
    assert params["layer_0"]["up"]["kernel"].shape == (D, D // 2)
    for r, i in np.ndindex(3, N):
        positions = np.asarray(WINDOWS.position_BNL[r, i])[np.asarray(WINDOWS.valid_BNL[r, i])]
        expected = np.zeros((6, D))
        if len(positions):
            candidate = np.broadcast_to(ITEMS[r, i], (len(positions), I))
            h = encoded(
                params, np.concatenate([ITEMS[r, positions], ACTIONS[r, positions], candidate], -1)
            )
            expected[0] = h.max(0)
            expected[1 : 1 + min(5, len(h))] = h[:5]
        np.testing.assert_allclose(features[r, i], expected.ravel(), atol=2e-5)


def test_an_impression_depends_only_on_its_window_and_the_candidate(params: Any) -> None:
    """The Jacobian is zero for actions of the same session, other members and padding."""

    def features(items: jax.Array, actions: jax.Array) -> jax.Array:
        steps = jnp.concatenate([items, actions], -1)
        return MODULE.apply({"params": params}, items, steps, WINDOWS).sum(-1)

    jacobian = jax.jit(jax.jacrev(features, argnums=(0, 1)))(ITEMS, ACTIONS)
    items, actions = (np.abs(np.asarray(j)).sum(-1) > 0 for j in jacobian)
    inside = np.zeros((3, N, 3, N), bool)
    for r, i in np.ndindex(3, N):
        member, session = BATCH.member[r], BATCH.session[r]
        earlier = (member == member[i]) & (session < session[i]) & (member[i] > 0)
        inside[r, i, r, np.flatnonzero(earlier)[-L:]] = True
    np.testing.assert_array_equal(actions, inside)
    own = np.eye(3 * N, dtype=bool).reshape(inside.shape) & inside.any((2, 3))[..., None, None]
    np.testing.assert_array_equal(items, inside | own)


def test_gradients_are_finite_without_any_history(params: Any) -> None:
    empty = Windows(WINDOWS.position_BNL * 0, WINDOWS.valid_BNL & False)

    @jax.jit
    def total(p: Any) -> jax.Array:
        return MODULE.apply({"params": p}, ITEMS, STEPS, empty).sum()

    gradient = jax.grad(total)(params)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


def test_windows_shorter_than_the_flattened_steps_are_refused() -> None:
    short = history_windows(BATCH.member, BATCH.session, 4)
    with pytest.raises(ValueError, match="no last=5"):
        MODULE.init(jax.random.key(0), ITEMS, STEPS, short)
