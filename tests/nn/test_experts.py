"""Laws of mixtures of experts: equality with NumPy, and the sparse gate and its losses."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from scipy.special import softmax
from scipy.stats import norm

from ligr_jax.nn.experts import (
    LOSSES,
    SparseExperts,
    chance_of_choice,
    top_softmax,
)
from ligr_jax.nn.mlp import MLP
from ligr_jax.nn.multitask import PLE, MMoE

D, F = 6, 4
RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 5, D)).astype(np.float32)
VALID = np.arange(5) < np.array([5, 3, 0])[:, None]


def disturbed(variables: Any, seed: int = 0) -> Any:
    """Return variables plus noise, as NumPy arrays."""
    noise = np.random.default_rng(seed)
    return jax.tree.map(
        lambda p: np.asarray(p) + 0.3 * noise.normal(size=p.shape).astype(np.float32), variables
    )


def params_of(module: nn.Module, *args: Any) -> Any:
    return disturbed(jax.jit(module.init)(jax.random.key(0), *args)["params"])


def outputs_of(module: nn.Module, params: Any, *args: Any) -> np.ndarray:
    return np.asarray(jax.jit(module.apply)({"params": params}, *args))


def network(p: Any, x: np.ndarray, gated: bool = False) -> np.ndarray:
    """Return an MLP computed in NumPy."""
    for i in range(sum(name.startswith("layer") for name in p)):
        x = np.maximum(x @ p[f"layer_{i}"]["kernel"] + p[f"layer_{i}"]["bias"], 0)
        if gated:
            x = x / (1 + np.exp(-(x @ p[f"gate_{i}"]["kernel"] + p[f"gate_{i}"]["bias"])))
    return x


def experts(p: Any, x: np.ndarray) -> np.ndarray:
    """Return the outputs of all experts [..., E, F], from their stacked parameters."""
    count = p["layer_0"]["bias"].shape[0]
    each = [jax.tree.map(lambda a, e=e: np.asarray(a[e]), p) for e in range(count)]
    return np.stack([network(q, x) for q in each], axis=-2)


@pytest.mark.parametrize("gated", [False, True])
def test_mlp_is_relu_layers_each_through_its_gate(gated: bool) -> None:
    module = MLP((8, F), gated)
    p = params_of(module, X)
    np.testing.assert_allclose(outputs_of(module, p, X), network(p, X, gated), atol=1e-5)


def test_sparse_experts_mix_the_k_best_by_their_softmax() -> None:
    module = SparseExperts(count=5, chosen=2, widths=(8, F))
    p = params_of(module, X, VALID)
    scores = X @ p["gate"]["kernel"]
    outputs = experts(p["experts"], X)
    expected = np.zeros((*X.shape[:-1], F))
    for i in np.ndindex(X.shape[:-1]):
        best = np.argsort(-scores[i])[:2]
        expected[i] = softmax(scores[i][best]) @ outputs[i][best]
    np.testing.assert_allclose(outputs_of(module, p, X, VALID), expected, atol=1e-5)


def dense(module: SparseExperts, p: Any, x: jax.Array) -> jax.Array:
    """Compute all experts, and weigh those that are not chosen by zero."""
    scores = x @ p["gate"]["kernel"]
    best = scores >= jnp.sort(scores)[..., -module.chosen, None]
    weights = jax.nn.softmax(jnp.where(best, scores, -jnp.inf))
    mlp = MLP(module.widths, module.gated)
    outputs = jax.vmap(lambda q: mlp.apply({"params": q}, x), out_axes=-2)(p["experts"])
    return jnp.einsum("...E,...EF->...F", weights, jnp.asarray(outputs))


@pytest.mark.parametrize("chosen", [1, 2])
@pytest.mark.parametrize("devices", [1, 8])
def test_sparse_experts_have_the_gradients_of_dense_ones(chosen: int, devices: int) -> None:
    """On one device and on eight, which do not gather the rows of the others."""
    module = SparseExperts(count=4, chosen=chosen, widths=(8, F), gated=True)
    x = RNG.normal(size=(16, 5, D)).astype(np.float32)
    p = params_of(module, x, np.ones((16, 5), bool))

    def gradients(layer: Callable[[Any, jax.Array], jax.Array]) -> Callable[..., Any]:
        return jax.jit(jax.grad(lambda p, x: (layer(p, x) ** 2).sum(), argnums=(0, 1)))

    sparse = gradients(
        lambda p, x: module.apply({"params": p}, x, jnp.ones(x.shape[:2], bool))  # type: ignore[arg-type, return-value]
    )
    expected = gradients(partial(dense, module))(p, x)
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh):
        rows, replicated = (NamedSharding(mesh, s) for s in (P("data"), P()))
        placed = jax.device_put((p, x), (replicated, rows))
        compiled = sparse.lower(*placed).compile()
        assert "all-gather" not in compiled.as_text()
        ours = compiled(*placed)
    for (path, g), e in zip(jax.tree.leaves_with_path(ours), jax.tree.leaves(expected)):
        np.testing.assert_allclose(g, e, atol=1e-4, err_msg=jax.tree_util.keystr(path))


def test_each_expert_starts_like_a_linear_map_of_its_own() -> None:
    """The deviation is D^-1/2: neither the number of experts nor F is part of the fan-in."""
    module = SparseExperts(count=8, chosen=1, widths=(32,))
    shapes = np.zeros((1, 64), np.float32), np.ones(1, bool)
    p = jax.jit(module.init)(jax.random.key(0), *shapes)["params"]["experts"]["layer_0"]
    assert p["kernel"].std() == pytest.approx(64**-0.5, rel=0.05)
    assert not p["bias"].any()


def test_an_example_does_not_depend_on_the_load_of_the_others() -> None:
    module = SparseExperts(count=4, chosen=2, widths=(8, F))
    x = RNG.normal(size=(2, 40, D)).astype(np.float32)
    valid = np.ones((2, 40), bool)
    p = params_of(module, x, valid)
    known = outputs_of(module, p, x, valid)
    crowded = np.broadcast_to(x[:1, :1] * 50, x.shape).copy()  # all choose the same experts
    crowded[1, 7] = x[1, 7]
    np.testing.assert_allclose(outputs_of(module, p, crowded, valid)[1, 7], known[1, 7], rtol=1e-5)


@pytest.mark.parametrize(
    "module", [MMoE(2, 3, (8, F)), PLE(2, 1, 2, (F,)), SparseExperts(4, 2, (F,))]
)
def test_experts_have_gradients_in_bfloat16(module: nn.Module) -> None:
    """Close to those in float32, although they are sums over many rows."""
    x = RNG.normal(size=(500, 5, D)).astype(np.float32)
    args = (x, np.ones((500, 5), bool)) if isinstance(module, SparseExperts) else (x,)
    p = params_of(module, *args)

    @partial(jax.jit, static_argnums=0)
    def gradient(module: nn.Module, p: Any) -> Any:
        return jax.grad(lambda p: jnp.asarray(module.apply({"params": p}, *args)).sum())(p)

    low = gradient(module.clone(dtype=jnp.dtype("bfloat16")), p)
    for g, e in zip(jax.tree.leaves(low), jax.tree.leaves(gradient(module, p))):
        np.testing.assert_allclose(g, e, rtol=0, atol=0.02 * np.abs(e).max() + 1e-3)


def test_balancing_losses_measure_gates_and_choices_without_padding() -> None:
    """With almost no noise, probabilities are 0 or 1, so the load counts choices of each expert.

    Gradients remain finite in this limit.
    """
    module = SparseExperts(count=4, chosen=2, widths=(F,), balance=0.3)
    p, x = params_of(module, X, VALID), np.abs(X) + 0.5
    p["gate"]["kernel"] *= 100
    p["noise"]["kernel"] = np.full_like(p["noise"]["kernel"], -100.0)

    @jax.jit
    def losses(p: Any, x: np.ndarray) -> jax.Array:
        rngs = {"dropout": jax.random.key(1)}
        _, sown = module.apply({"params": p}, x, VALID, False, rngs=rngs, mutable=[LOSSES])
        return jnp.concatenate([jnp.stack(sown[LOSSES][name]) for name in ("importance", "load")])

    scores = x[VALID] @ np.asarray(p["gate"]["kernel"])
    order = np.sort(scores)
    assert np.diff(order).min() > 0.1  # ten times the noise
    best = scores >= order[:, -2:-1]
    gates = softmax(np.where(best, scores, -np.inf), axis=-1)
    expected = [0.3 * share.sum(0).var() / share.sum(0).mean() ** 2 for share in (gates, best)]
    np.testing.assert_allclose(losses(p, x), expected, rtol=0.02)
    padded = np.where(VALID[..., None], x, 99.0).astype(np.float32)
    np.testing.assert_allclose(losses(p, padded), losses(p, x), rtol=1e-5)
    gradient = jax.grad(lambda p: losses(p, x).sum())(p)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


def test_the_chance_of_a_choice_is_its_frequency() -> None:
    """It equals eq. 8 of the paper's appendix, and the frequency over many draws of the noise."""
    clean, noise, drawn = RNG.normal(size=5), RNG.uniform(0.3, 1.5, 5), RNG.normal(size=5)
    chance = np.asarray(jax.jit(chance_of_choice, static_argnums=3)(clean, noise, drawn, 2))
    for i in range(5):
        others = np.sort(np.delete(drawn, i))[::-1]
        assert chance[i] == pytest.approx(norm.cdf((clean[i] - others[1]) / noise[i]), abs=1e-5)
        redrawn = np.tile(drawn, (20000, 1))
        redrawn[:, i] = clean[i] + noise[i] * RNG.normal(size=20000)
        indices = jax.jit(top_softmax, static_argnums=1)(redrawn, 2)[1]
        assert np.equal(indices, i).any(-1).mean() == pytest.approx(chance[i], abs=0.02)


def test_the_losses_spread_the_load() -> None:
    """Descent on the losses alone balances a gate that prefers one expert."""
    module = SparseExperts(count=4, chosen=1, widths=(F,), balance=1.0)
    x = np.abs(np.random.default_rng(2).normal(size=(1, 256, D))).astype(np.float32)
    real = np.ones((1, 256), bool)
    p = jax.jit(module.init)(jax.random.key(0), x, real)["params"]
    p["gate"]["kernel"] = p["gate"]["kernel"].at[:, 0].set(1.0)

    @jax.jit
    def loss(p: Any, key: jax.Array) -> jax.Array:
        _, sown = module.apply(
            {"params": p}, x, real, False, rngs={"dropout": key}, mutable=[LOSSES]
        )
        return sum(jax.tree.leaves(sown), jnp.zeros(()))

    @jax.jit
    def step(i: Any, p: Any) -> Any:
        gradient = jax.grad(loss)(p, jax.random.key(i))
        return jax.tree.map(lambda a, g: a - 0.05 * g, p, gradient)

    assert loss(p, jax.random.key(0)) > 3
    assert loss(jax.lax.fori_loop(0, 200, step, p), jax.random.key(0)) < 0.1


def test_mmoe_gives_each_task_its_mixture() -> None:
    module = MMoE(tasks=3, count=4, widths=(8, F))
    p = params_of(module, X)
    weights = softmax((X @ p["gates"]["kernel"]).reshape(3, 5, 3, 4), axis=-1)
    expected = np.einsum("...TE,...EF->...TF", weights, experts(p["experts"]["networks"], X))
    np.testing.assert_allclose(outputs_of(module, p, X), expected, atol=1e-5)


def test_ple_mixes_own_and_shared_experts_level_by_level() -> None:
    module = PLE(tasks=2, count=2, shared=3, widths=(F,), levels=2)
    p = params_of(module, X)

    def level(number: int, inputs: list[np.ndarray], parts: list[str]) -> list[np.ndarray]:
        names = [f"level_{number}_{part}" for part in ("task_0", "task_1", "shared")]
        outputs = [experts(p[f"{n}_experts"]["networks"], h) for n, h in zip(names, inputs)]
        groups = [[outputs[0], outputs[2]], [outputs[1], outputs[2]], outputs]
        mixed = []
        for name, h, group in zip(names[: len(parts)], inputs, groups):
            weights = softmax(h @ p[f"{name}_gate"]["kernel"], axis=-1)
            mixed.append(np.einsum("...E,...EF->...F", weights, np.concatenate(group, -2)))
        return mixed

    first = level(0, [X] * 3, ["task_0", "task_1", "shared"])
    expected = np.stack(level(1, first, ["task_0", "task_1"]), axis=-2)
    np.testing.assert_allclose(outputs_of(module, p, X), expected, atol=1e-5)
    assert "level_1_shared_gate" not in p
