"""Laws of `attend`: it equals its equation, over exactly the pairs of the mask."""

from functools import partial
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ligr_jax.ops.attention import (
    Activation,
    KeyValues,
    Past,
    RelativeBias,
    bucket_distance,
)
from ligr_jax.ops.attention import attend as eager_attend
from ligr_jax.ops.attention import attend_cached as eager_attend_cached
from ligr_jax.ops.attention import cached as cached_module
from ligr_jax.ops.masks import Mask, dense_mask, past_ends
from ligr_jax.ops.masks import history_mask as eager_history_mask
from tests.batches import random_batch

HEADS, K, BUCKETS = 2, 4, 8
ACTIVATIONS = get_args(Activation)
attend = jax.jit(eager_attend, static_argnames="activation")
history_mask = jax.jit(eager_history_mask)


def problem(seed: int = 0) -> tuple[list[np.ndarray], Mask, RelativeBias]:
    """Return q, k, v, a mask with padding and an empty row, and a bias by session distance."""
    rng = np.random.default_rng(seed)
    batch = random_batch([[[2, 3, 1], [4]], [[1, 1]], []], 11)
    t = 2 * batch.member.shape[1]
    qkv = [2 * rng.normal(size=(3, t, HEADS, K)).astype(np.float32) for _ in range(3)]
    table = rng.normal(size=(HEADS, BUCKETS)).astype(np.float32)
    bias = RelativeBias(jnp.asarray(table), jnp.asarray(np.repeat(batch.session, 2, axis=1)))
    return qkv, history_mask(batch.member, batch.session), bias


def slow(
    qkv: list[np.ndarray], mask: Mask, activation: str, bias: RelativeBias | None
) -> np.ndarray:
    """Compute attention query by query, in NumPy and float64."""
    q, k, v = (x.astype(np.float64) for x in qkv)
    allowed, out = np.asarray(dense_mask(mask)), np.zeros(q.shape)
    if bias is not None:
        table, position = np.asarray(bias.table), np.asarray(bias.position)
        bucket = np.asarray(bucket_distance(np.arange(position.max() + 1), BUCKETS))
    for b, t, h in np.ndindex(q.shape[:3]):
        if not mask.valid[b, t]:
            continue
        keys = np.flatnonzero(allowed[b, t])
        s = k[b, keys, h] @ q[b, t, h] / np.sqrt(K)
        if bias is not None:
            s += table[h, bucket[np.abs(position[b, t] - position[b, keys])]]
        weights = {
            "softmax": np.exp(s - s.max()) / np.exp(s - s.max()).sum(),
            "silu": s / (1 + np.exp(-s)) / len(keys),
            "sigmoid": 1 / (1 + np.exp(-s)) / len(keys),
        }[activation]
        out[b, t, h] = weights @ v[b, keys, h]
    return out


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_attend_equals_a_slow_reference(activation: Activation, with_bias: bool) -> None:
    qkv, mask, bias = problem()
    used = bias if with_bias else None
    out = attend(*map(jnp.asarray, qkv), mask, activation=activation, bias=used)
    np.testing.assert_allclose(out, slow(qkv, mask, activation, used), atol=3e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_padding_has_zero_outputs_and_zero_gradients(activation: Activation) -> None:
    qkv, mask, bias = problem()
    padding = ~np.asarray(mask.valid)

    def attended(q: jax.Array, k: jax.Array, v: jax.Array, table: jax.Array) -> jax.Array:
        return attend(q, k, v, mask, activation=activation, bias=bias._replace(table=table))

    @jax.jit
    def both(*arrays: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        out, pull = jax.vjp(attended, *arrays)
        return out, pull(jnp.ones_like(out))

    out, gradients = both(*map(jnp.asarray, qkv), bias.table)
    assert (np.asarray(out)[padding] == 0).all()
    for g in gradients[:3]:
        assert (np.asarray(g)[padding] == 0).all()
        assert (np.asarray(g)[~padding] != 0).any()
    assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_bfloat16_inputs_agree_with_float32_within_their_rounding(activation: Activation) -> None:
    qkv, mask, bias = problem()
    short = [jnp.asarray(x, jnp.bfloat16) for x in qkv]
    out = attend(*short, mask, activation=activation, bias=bias)
    assert out.dtype == jnp.bfloat16
    exact = attend(*(x.astype(jnp.float32) for x in short), mask, activation=activation, bias=bias)
    np.testing.assert_allclose(out.astype(jnp.float32), exact, atol=0.05, rtol=0.02)


@pytest.mark.parametrize("buckets", [8, 32])
def test_buckets_are_exact_below_half_monotone_above_and_full_at_4096(buckets: int) -> None:
    bucket = np.asarray(bucket_distance(jnp.arange(10_000), buckets))
    np.testing.assert_array_equal(bucket[: buckets // 2], np.arange(buckets // 2))
    assert (np.diff(bucket) >= 0).all()
    assert (np.diff(bucket) <= 1).all()
    assert bucket[4096] == bucket[-1] == buckets - 1
    fractions = bucket_distance(jnp.array([-3.0, 0.9, 1.0, 1e9]), buckets)
    np.testing.assert_array_equal(fractions, [0, 0, 1, buckets - 1])


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_candidates_see_a_cached_history_as_a_new_session_sees_it(
    activation: Activation, with_bias: bool
) -> None:
    """Two members with histories of different length, three candidates each."""
    rng = np.random.default_rng(0)
    batch = random_batch([[[2, 3, 1, 3]], [[1, 3]]], 9)
    mask = history_mask(batch.member, batch.session)
    q, k, v = rng.normal(size=(3, 2, 18, HEADS, K)).astype(np.float32)
    position = np.repeat(batch.session, 2, axis=1)
    table = rng.normal(size=(HEADS, BUCKETS)).astype(np.float32)
    bias = RelativeBias(table, position) if with_bias else None
    whole = np.asarray(attend(q, k, v, mask, activation=activation, bias=bias))

    length = np.array([12, 2])  # tokens before the last session
    row, token = np.arange(2)[:, None], length[:, None] + np.arange(0, 6, 2)
    candidates = [x[row, token] for x in (q, k, v)]
    if bias is not None:
        bias = RelativeBias(table, position[row, token])
    past = Past(KeyValues(k[:, :14], v[:, :14]), length[:, None], position[:, :14])
    attend_cached = jax.jit(partial(eager_attend_cached, activation=activation))
    cached = attend_cached(*candidates, past, bias=bias)
    np.testing.assert_allclose(cached, whole[row, token], atol=1e-6)


@pytest.mark.parametrize("window", [5, 256])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_new_tokens_see_a_cached_history_and_each_other_as_in_one_row(
    activation: Activation, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row, cut inside a session; the history is visited in one window or in several."""
    monkeypatch.setattr(cached_module, "_WINDOW", window)
    rng = np.random.default_rng(0)
    batch = random_batch([[[2, 3, 1, 3]]], 9)
    session = batch.session
    q, k, v = rng.normal(size=(3, 1, 18, HEADS, K)).astype(np.float32)
    k, v = k[:, :, :1], v[:, :, :1]  # shared by the heads
    position = np.repeat(session, 2, axis=1)
    bias = RelativeBias(rng.normal(size=(HEADS, BUCKETS)).astype(np.float32), position)
    mask = history_mask(batch.member, session)
    whole = np.asarray(attend(q, k, v, mask, activation=activation, bias=bias))

    cut = 4  # of 9 impressions, inside the second session
    ends = np.asarray(jax.jit(past_ends)(session, np.array([cut]), session[:, cut:]))
    padding = np.arange(18)[:, None, None] >= 2 * cut
    kept = KeyValues(*(np.where(padding, np.float32(1e3), x) for x in (k, v)))
    new = [x[:, 2 * cut :] for x in (q, k, v)]
    attend_cached = jax.jit(partial(eager_attend_cached, activation=activation))
    out = attend_cached(
        *new,
        Past(kept, np.repeat(2 * ends, 2, axis=1), position),
        history_mask(np.ones_like(session[:, cut:]), session[:, cut:]),
        bias=bias._replace(position=position[:, 2 * cut :]),
    )
    np.testing.assert_allclose(out, whole[:, 2 * cut :], atol=1e-6)
