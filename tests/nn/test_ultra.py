"""ULTRA-HSTU equals its equations in NumPy, and the attention of public implementations."""

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ligr_jax.config import ConfigError, ModelConfig, TwoStreamConfig, UltraConfig
from ligr_jax.nn.models import attention_pairs, make_model
from ligr_jax.nn.mup import HISTORY
from ligr_jax.nn.semi_local import SemiLocal, attend_semi_local, semi_local_masks
from ligr_jax.nn.streams import Streams, View, attend_range, view_of_row
from ligr_jax.nn.ultra import UltraLayers
from ligr_jax.ops.attention import KeyValues, OwnKeys
from ligr_jax.ops.masks import Mask, allowed_keys
from tests.batches import random_batch
from tests.nn.fixtures import Arrays, Fixture, check, load_fixture
from tests.nn.two_stream_kinds import two_stream_config

pytestmark = pytest.mark.usefixtures("quick_keys")

N = 12
PACKED = [[[2, 3, 1], [1, 2]], [[3, 1, 2, 3, 2]], []]
ULTRA = UltraConfig(local_window=3, oldest=2, truncated_layers=1, truncated_window=4)


def ultra(**changes: Any) -> ModelConfig:
    return two_stream_config("ultra", **({"position": "none", "ultra": ULTRA} | changes))


def visible(batch: Any, truncated: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the history keys of history tokens and of candidates under `ULTRA`, bool [B, N, N]."""
    b, n = batch.member.shape
    history, candidates = np.zeros((2, b, n, n), bool)
    for row in range(b):
        for i in np.flatnonzero(batch.member[row]):
            own = np.flatnonzero(batch.member[row] == batch.member[row, i])
            earlier = own[batch.session[row, own] < batch.session[row, i]]
            near = own[(own <= i) & (own > i - 3)]
            oldest = own[:2][own[:2] <= i]
            history[row, i, near if truncated else np.union1d(near, oldest)] = True
            candidates[row, i, earlier[-4:] if truncated else earlier] = True
    return history, candidates


def norm(x: np.ndarray, p: Any) -> np.ndarray:
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * p["scale"] + p["bias"]


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def layer(h: np.ndarray, c: np.ndarray, p: Any, masks: Any, gate_only: bool) -> Any:
    """Return both streams of one row [N, 8] after a layer with two heads."""

    def projected(x: np.ndarray) -> list[np.ndarray]:
        u, *vqk = np.split(norm(x, p["norm"]) @ p["uvqk"]["kernel"] + p["uvqk"]["bias"], 4, -1)
        vqk = vqk if gate_only else [silu(part) for part in vqk]
        return [silu(u), *(part.reshape(len(x), 2, 4) for part in vqk)]

    of_history, of_candidates = projected(h), projected(c)
    result = []
    for x, (u, v, q, k), mask in zip((h, c), (of_history, of_candidates), masks):
        mixed = np.zeros((len(x), 2, 4))
        for i in np.flatnonzero(mask.any(1) | (x is c)):
            keys, values = of_history[3][mask[i]], of_history[1][mask[i]]
            if x is c:
                keys, values = np.append(keys, k[i : i + 1], 0), np.append(values, v[i : i + 1], 0)
            weights = silu(np.einsum("hk,jhk->jh", q[i], keys) / 2)
            mixed[i] = np.einsum("jh,jhk->hk", weights, values) / len(keys)
        normed = norm(mixed.reshape(len(x), 8), p["mixed_norm"])
        result.append(x + (normed * u) @ p["out"]["kernel"])
    return result


@pytest.mark.parametrize("activation", ["all", "gate"])
def test_layers_equal_their_equations(activation: Any) -> None:
    """A full layer and a truncated one, in values; and the pairs that the FLOPs count."""
    config = ultra(ultra=UltraConfig(3, 2, 1, 4, activation))
    batch = random_batch(PACKED, N)
    rng = np.random.default_rng(0)
    h, c = rng.normal(size=(2, len(PACKED), N, 8)).astype(np.float32)
    view = view_of_row(config, jnp.asarray(batch.member), jnp.asarray(batch.session), None)
    module = UltraLayers(config)
    args = (Streams(jnp.asarray(h), jnp.asarray(c)[:, :, None]), view, None, True, False)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *args))["params"]
    params = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), shapes)
    ours = jax.jit(lambda p: module.apply({"params": p}, *args)[0])(params)

    pairs = np.zeros(2)
    for name, truncated in (("full", False), ("truncated", True)):
        p = jax.tree.map(lambda x: x[0].astype(np.float64), params[name]["layers"])
        masks = visible(batch, truncated)
        pairs += [mask.sum() for mask in masks]
        rows = [
            layer(*row[:2], p, row[2:], activation == "gate")
            for row in zip(h.astype(float), c.astype(float), *masks)
        ]
        h, c = (np.stack(x) for x in zip(*rows))
    real = batch.member > 0
    np.testing.assert_allclose(ours.history_BND[real], h[real], rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(ours.candidates_BNMD[:, :, 0][real], c[real], rtol=2e-4, atol=2e-4)
    counted = attention_pairs(config, batch.member, batch.session)
    assert [counted["stream_pairs"], counted["range_pairs"]] == list(pairs)


def test_parameters_and_their_initial_deviations() -> None:
    """5 D^2 of the two matrices, a bias, two norms and a relative bias; no candidate projection."""
    config = ultra(width=64, position="relative_session")
    batch = random_batch([[[2]]], 2)
    params = jax.jit(make_model(config).init)(jax.random.key(0), batch)["params"]
    d = config.width
    for stack in params[HISTORY].values():
        assert sum(p.size for p in jax.tree.leaves(stack)) == 5 * d * d + 4 * d + 4 * d + 2 * 32
        for name in ("uvqk", "out"):
            assert np.std(stack["layers"][name]["kernel"]) == pytest.approx(d**-0.5, rel=0.1)
    assert np.std(params["no_action"]) == pytest.approx(d**-0.5, rel=0.3)
    assert "tokens" not in params


def public_layer(fixture: Fixture, x: jax.Array, p: Arrays, lengths: np.ndarray) -> jax.Array:
    """Return TorchEasyRec's layer of rows [B, T, D], which are a history, then targets.

    It applies SiLU to U alone, divides by a constant, and its output layer reads [U, A, U LN(A)].
    Its values are wider than its keys, which are padded.
    """
    c = fixture.config
    b, t, _ = x.shape
    wide, narrow = c["V"], c["K"]

    def norm_of(name: str, y: jax.Array) -> jax.Array:
        params = {"scale": p[f"{name}/gain"], "bias": p[f"{name}/bias"]}
        return nn.LayerNorm(epsilon=c["eps"]).apply({"params": params}, y)

    uvqk = norm_of("norm", x) @ p["uvqk/kernel"] + p["uvqk/bias"]
    u, *vqk = jnp.split(uvqk, c["H"] * np.cumsum([wide, wide, narrow]), axis=-1)
    v, q, k = (
        jnp.pad(part := z.reshape(b, t, c["H"], -1), [(0, 0)] * 3 + [(0, wide - part.shape[-1])])
        for z in vqk
    )
    q *= (wide / narrow) ** 0.5
    u = nn.silu(u)

    config = ultra(heads=c["H"])
    index = np.broadcast_to(np.arange(t), (b, t))
    history = (lengths - fixture.extra["targets"])[:, None]
    valid = index < history
    zero = np.zeros_like(index)
    seen = Mask(zero, np.where(valid, index, 0), valid, index)
    if c["k1"] == 0:  # the context sees the whole history
        seen = Mask(zero, np.where(index < c["context"], history, index + 1) * valid, valid)
    view = View(seen, ranges=Mask(zero, zero + history, index < lengths[:, None]))
    keys = SemiLocal(c["k1"], c["k2"])
    # Where attention is semi-local, a target does not see itself.
    own = OwnKeys(k[:, :, None], v[:, :, None], jnp.ones((1, 1), bool)) if c["k1"] == 0 else None
    of_history = attend_semi_local(config, q, KeyValues(k, v), view, None, keys)
    of_targets = attend_range(
        config, q[:, :, None], KeyValues(k, v), view, None, own, activation="silu"
    )[:, :, 0]
    count = sum(allowed_keys(mask) for mask in semi_local_masks(seen, keys))
    count = jnp.where(valid, count, history + (own is not None))[..., None, None] / c["scaling"]
    mixed = (jnp.where(valid[..., None, None], of_history, of_targets) * count).reshape(u.shape)
    return x + jnp.concatenate([u, mixed, u * norm_of("mixed_norm", mixed)], -1) @ p["out/kernel"]


def rows_of(x: jax.Array, offsets: np.ndarray) -> jax.Array:
    """Return ragged rows [T, D] as padded ones [B, T, D]."""
    longest = np.diff(offsets).max()
    parts = [x[start:end] for start, end in pairwise(offsets)]
    return jnp.stack([jnp.pad(part, [(0, longest - len(part)), (0, 0)]) for part in parts])


def ragged(x: jax.Array, lengths: np.ndarray) -> jax.Array:
    return jnp.concatenate([row[:length] for row, length in zip(x, lengths)])


@pytest.mark.parametrize("name", ["ultra_hstu_layer", "stu_layer"])
def test_attention_equals_that_of_a_public_layer(name: str) -> None:
    fixture = load_fixture(name)
    offsets = fixture.extra["offsets"]
    lengths = np.diff(offsets)

    def fn(inputs: Arrays, params: Arrays) -> jax.Array:
        x = rows_of(inputs["x"], offsets)
        return ragged(public_layer(fixture, x, params, lengths), lengths)

    check(fn, fixture)


def test_attention_equals_that_of_public_layers_with_truncation() -> None:
    """The public code cuts the sequence, except its context, between two layers."""
    fixture = load_fixture("ultra_hstu_truncation")
    c, targets = fixture.config, fixture.extra["targets"]
    lengths = np.diff(fixture.extra["offsets"])

    def fn(inputs: Arrays, params: Arrays) -> jax.Array:
        layers = [
            {k.removeprefix(f"layer{i}/"): p for k, p in params.items() if f"layer{i}/" in k}
            for i in range(2)
        ]
        x = rows_of(inputs["x"], fixture.extra["offsets"])
        y = public_layer(fixture, x, layers[0], lengths)
        left = [
            np.r_[: c["context"], length - count - c["tail"] : length]
            for length, count in zip(lengths, targets)
        ]
        kept = jnp.concatenate([row[index] for row, index in zip(y, left)])
        after = fixture.extra["offsets_after"]
        z = public_layer(fixture, rows_of(kept, after), layers[1], np.diff(after))
        return ragged(z, np.diff(after))

    check(fn, fixture)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"streams": TwoStreamConfig(tokens=2)}, r"tokens=2.*has one.*set it to 8"),
        ({"depth": 1}, r"truncated_layers=1.*below model.depth=1"),
        ({"attention": "silu"}, r"model.attention=silu applies to LiGR's block"),
    ],
)
def test_what_does_not_apply_is_refused(changes: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ultra(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"truncated_layers": 1}, "set both"),
        ({"local_window": 0, "oldest": 2}, "set local_window >= 1 or oldest=0"),
        ({"oldest": -1}, "must be >= 0"),
    ],
)
def test_windows_that_contradict_each_other_are_refused(changes: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        UltraConfig(**changes)
