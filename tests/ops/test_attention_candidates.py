"""Laws of `attend_candidates`: a range and own keys are one softmax, in every implementation."""

from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ligr_jax.ops.attention import (
    Activation,
    KeyValues,
    OwnKeys,
    Past,
    RelativeBias,
    attend_candidates,
    attend_candidates_cached,
    blocked,
    bucket_distance,
)
from ligr_jax.ops.attention import cached as cached_module
from ligr_jax.ops.masks import Mask, earlier_mask, newest_of
from tests.batches import random_batch

M, P, H, G, K, BUCKETS = 3, 3, 4, 2, 4, 8
IMPLEMENTATIONS = ("dense", "blocked", "gpu", "tpu")
BATCH = random_batch([[[2, 3, 1], [4, 2]], [[1, 1]], []], 13)
CAUSAL = np.tril(np.ones((M, P), bool))


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocked, "SESSION_TILES", blocked.Tiles(18, 4))
    monkeypatch.setattr(cached_module, "_WINDOW", 4)


def problem() -> tuple[dict[str, np.ndarray], Mask]:
    """Return queries, keys and values, a bias table, and ranges of which some are empty."""
    rng = np.random.default_rng(0)
    n = BATCH.member.shape[1]
    shapes = {
        "q": (3, n, M, H, K),
        "k": (3, n, G, K),
        "v": (3, n, G, K),
        "own_k": (3, n, P, G, K),
        "own_v": (3, n, P, G, K),
        "table": (H, BUCKETS),
    }
    arrays = {name: rng.normal(size=s).astype(np.float32) for name, s in shapes.items()}
    return arrays, jax.jit(earlier_mask)(BATCH.member, BATCH.session)


def call(
    arrays: dict[str, Any], mask: Mask, activation: Any, with_bias: bool, implementation: Any
) -> jax.Array:
    own = OwnKeys(arrays["own_k"], arrays["own_v"], jnp.asarray(CAUSAL))
    bias = RelativeBias(arrays["table"], jnp.asarray(BATCH.session)) if with_bias else None
    return attend_candidates(
        arrays["q"],
        arrays["k"],
        arrays["v"],
        mask,
        own,
        activation=activation,
        bias=bias,
        implementation=implementation,
    )


def slow(x: dict[str, np.ndarray], mask: Mask, activation: str, with_bias: bool) -> np.ndarray:
    """Compute every query alone, in NumPy and float64, over the union of its keys."""
    x = {name: value.astype(np.float64) for name, value in x.items()}
    lo, hi, valid = (np.asarray(a) for a in (mask.lo, mask.hi, mask.valid))
    bucket = np.asarray(bucket_distance(jnp.arange(20), BUCKETS))
    out = np.zeros(x["q"].shape)
    for b, n, m, h in np.ndindex(out.shape[:4]):
        if not valid[b, n]:
            continue
        g = h * G // H
        keys = np.concatenate([x["k"][b, lo[b, n] : hi[b, n], g], x["own_k"][b, n, : m + 1, g]])
        values = np.concatenate([x["v"][b, lo[b, n] : hi[b, n], g], x["own_v"][b, n, : m + 1, g]])
        s = keys @ x["q"][b, n, m, h] / np.sqrt(K)
        if with_bias:
            apart = BATCH.session[b, n] - BATCH.session[b, lo[b, n] : hi[b, n]]
            s += x["table"][h, bucket[np.concatenate([apart, np.zeros(m + 1, int)])]]
        weights = {
            "softmax": np.exp(s - s.max()) / np.exp(s - s.max()).sum(),
            "silu": s / (1 + np.exp(-s)) / len(keys),
            "sigmoid": 1 / (1 + np.exp(-s)) / len(keys),
        }[activation]
        out[b, n, m, h] = weights @ values
    return out


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("activation", get_args(Activation))
def test_range_and_own_keys_are_one_softmax(activation: Activation, implementation: str) -> None:
    arrays, mask = problem()
    with_bias = implementation in ("dense", "blocked")
    run = jax.jit(
        partial(
            call,
            mask=mask,
            activation=activation,
            with_bias=with_bias,
            implementation=implementation,
        )
    )
    wanted = slow(arrays, mask, activation, with_bias)
    np.testing.assert_allclose(run(arrays), wanted, atol=3e-6)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS[1:])
@pytest.mark.parametrize("activation", ["softmax", "silu"])
def test_gradients_are_those_of_the_dense_form(activation: Activation, implementation: str) -> None:
    arrays, mask = problem()
    with_bias = implementation == "blocked"

    def gradient(implementation: str) -> Any:
        def loss(arrays: dict[str, jax.Array]) -> jax.Array:
            return (call(arrays, mask, activation, with_bias, implementation) ** 2).sum()

        return jax.jit(jax.grad(loss))(arrays)

    wanted = gradient("dense")
    for name, g in gradient(implementation).items():
        np.testing.assert_allclose(g, wanted[name], atol=2e-5, err_msg=name)


def test_the_dense_forms_gradient_is_that_of_finite_differences() -> None:
    arrays, mask = problem()
    rng = np.random.default_rng(1)
    step = {name: rng.normal(size=x.shape) for name, x in arrays.items()}

    def loss(arrays: dict[str, Any]) -> Any:
        return (call(arrays, mask, "softmax", True, "dense") ** 2).sum()

    def slow_loss(t: float) -> float:
        moved = {name: x + t * step[name] for name, x in arrays.items()}
        return float((slow(moved, mask, "softmax", True) ** 2).sum())

    grads = jax.jit(jax.grad(loss))(arrays)
    directional = sum((np.asarray(grads[name], np.float64) * step[name]).sum() for name in arrays)
    numerical = (slow_loss(1e-4) - slow_loss(-1e-4)) / 2e-4
    assert directional == pytest.approx(numerical, rel=1e-4)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_an_empty_range_without_own_keys_gives_zeros_and_no_nan(implementation: str) -> None:
    arrays, mask = problem()

    def loss(arrays: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        q, k, v = arrays["q"], arrays["k"], arrays["v"]
        out = attend_candidates(q, k, v, mask, implementation=implementation)  # type: ignore[arg-type]
        return (out**2).sum(), out

    (_, out), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(arrays)
    empty = np.asarray(mask.lo == mask.hi)
    assert (np.asarray(out)[empty] == 0).all()
    assert (np.abs(out).max((2, 3, 4))[~empty] > 0).all()
    assert all(np.isfinite(g).all() for g in grads.values())


@pytest.mark.parametrize("window", [0, 3])
@pytest.mark.parametrize("with_own", [True, False])
@pytest.mark.parametrize("activation", ["softmax", "silu"])
def test_a_cached_history_gives_what_a_row_gives(
    activation: Activation, with_own: bool, window: int
) -> None:
    """A member's last session, as candidates of a request, reads a cache of the others."""
    arrays, mask = problem()
    # Row 0: member 2 has impressions 6 .. 11, and those from 10 on are its last session.
    start, first, end = 6, 10, 12
    part = {name: jnp.asarray(x[:1, first:end]) for name, x in arrays.items() if x.ndim > 2}
    own = OwnKeys(part["own_k"], part["own_v"], jnp.asarray(CAUSAL)) if with_own else None
    bias = RelativeBias(jnp.asarray(arrays["table"]), jnp.asarray(BATCH.session[:1, first:end]))
    kept = KeyValues(
        *(jnp.pad(arrays[k][:1, start:first], ((0, 0), (0, 3), (0, 0), (0, 0))) for k in ("k", "v"))
    )
    length = jnp.full((1, 1), first - start)
    past = Past(
        kept=kept,
        length=length,
        position=jnp.pad(jnp.asarray(BATCH.session[:1, start:first]), ((0, 0), (0, 3))),
        start=jnp.maximum(length - window, 0) if window else None,
    )
    cached = jax.jit(partial(attend_candidates_cached, activation=activation))
    served = cached(part["q"], past, own, bias=bias)

    whole = OwnKeys(arrays["own_k"], arrays["own_v"], CAUSAL) if with_own else None  # type: ignore[arg-type]
    row = jax.jit(partial(attend_candidates, activation=activation))
    row_bias = bias._replace(position=jnp.asarray(BATCH.session))
    q, k, v = arrays["q"], arrays["k"], arrays["v"]
    trained = row(q, k, v, newest_of(mask, window or None), whole, bias=row_bias)
    np.testing.assert_allclose(served[0], trained[0, first:end], atol=3e-6)
