"""Laws of the TPU kernels, interpreted: they equal `attend_dense`, and NaN does not leak."""

import re
from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ligr_jax.ops.attention.dense import attend_dense
from ligr_jax.ops.attention.scores import Activation
from ligr_jax.ops.attention.tpu import _attend, _plans, attend_tpu
from ligr_jax.ops.masks import Mask, dense_mask, history_mask, session_mask
from tests.batches import random_batch, random_layout

N, H, G, K = 23, 4, 2, 6
TILE = 8  # neither N nor 2N is a multiple
LONG = [
    [[3, 18]],
    [[14]],
    [[1] * 9, [1], [12]],
    [],
]  # sessions longer than a tile, of one item; an empty row
BATCH = random_batch(random_layout(np.random.default_rng(1), 2, N) + LONG, N)
MASKS: dict[str, Mask] = {
    "session": jax.jit(history_mask)(BATCH.member, BATCH.session),
    "causal": jax.jit(partial(history_mask, kind="causal"))(BATCH.member, BATCH.session),
    "set": jax.jit(session_mask)(BATCH.member, BATCH.session),
}
Arrays = tuple[jax.Array, ...]


def problem(mask: Mask, dtype: Any = jnp.float32, seed: int = 0) -> Arrays:
    """Return q, k, v, and the gradient of a loss by the output."""
    rng, (b, t) = np.random.default_rng(seed), mask.lo.shape
    shapes = [(b, t, heads, K) for heads in (H, G, G, H)]
    return tuple(jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes)


def tiled(q: jax.Array, k: jax.Array, v: jax.Array, mask: Mask, activation: Activation) -> Any:
    return _attend(q, k, v, mask, activation, True, TILE)[0]


def dense(q: jax.Array, k: jax.Array, v: jax.Array, mask: Mask, activation: Activation) -> Any:
    return attend_dense(q, k, v, mask, activation, None)[0]


@partial(jax.jit, static_argnums=(0, 3))
def with_gradients(function: Any, arrays: Arrays, mask: Mask, activation: Activation) -> Arrays:
    *qkv, d_out = arrays
    out, pull = jax.vjp(lambda *x: function(*x, mask, activation), *qkv)
    return (out, *pull(d_out))


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("activation", get_args(Activation))
def test_kernels_equal_dense_attention_and_its_gradients(activation: Any, kind: str) -> None:
    mask = MASKS[kind]
    arrays = problem(mask)
    outputs = with_gradients(tiled, arrays, mask, activation)
    wanted = with_gradients(dense, arrays, mask, activation)
    padding = ~np.asarray(mask.valid)
    for x, y in zip(outputs, wanted):
        np.testing.assert_allclose(x, y, atol=1e-5, rtol=1e-5)
        assert (np.asarray(x)[padding] == 0).all()


def test_tiles_of_the_hardware_equal_dense_attention() -> None:
    batch = random_batch([[[40, 3, 200], [50]]], 300)
    mask = history_mask(jnp.asarray(batch.member), jnp.asarray(batch.session))
    arrays = problem(mask)

    def interpreted(*args: Any) -> jax.Array:
        return attend_tpu(*args, interpret=True)[0]

    wanted = with_gradients(dense, arrays, mask, "softmax")
    for x, y in zip(with_gradients(interpreted, arrays, mask, "softmax"), wanted):
        np.testing.assert_allclose(x, y, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("kind", "activation"), [("session", "softmax"), ("set", "silu")])
def test_bfloat16_inputs_agree_with_float32_within_their_rounding(
    kind: str, activation: Any
) -> None:
    mask = jax.tree.map(lambda x: x[:3], MASKS[kind])  # bfloat16 is slow on a CPU
    arrays = problem(mask, jnp.bfloat16)
    exact = with_gradients(dense, [x.astype(jnp.float32) for x in arrays], mask, activation)
    for x, y in zip(with_gradients(tiled, arrays, mask, activation), exact):
        assert x.dtype == jnp.bfloat16
        np.testing.assert_allclose(x.astype(jnp.float32), y, atol=0.02 * np.abs(y).max())


def test_mapped_and_rematerialized_kernels_equal_dense_attention() -> None:
    mask = jax.tree.map(lambda *x: jnp.stack(x), MASKS["session"], MASKS["causal"])
    arrays = tuple(
        jnp.stack(x) for x in zip(*(problem(MASKS["session"], seed=seed) for seed in (1, 2)))
    )

    def mapped(function: Any) -> Arrays:
        kept = jax.checkpoint(function, static_argnums=4)
        return jax.vmap(lambda a, m: with_gradients(kept, a, m, "softmax"))(arrays, mask)

    for x, y in zip(mapped(tiled), mapped(dense)):
        np.testing.assert_allclose(x, y, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("planted", ["qkvd", "k", "v"])
@pytest.mark.parametrize(("kind", "activation"), [("session", "softmax"), ("set", "silu")])
def test_nan_reaches_exactly_the_queries_that_may_see_it(
    kind: str, activation: Any, planted: str
) -> None:
    mask = MASKS[kind]
    per = mask.lo.shape[1] // N  # tokens of an impression
    member = np.repeat(BATCH.member, per, axis=1)
    sick = (member == 2) & (
        np.cumsum(member == 2, axis=1) == 1
    )  # a token before other members of the row
    arrays = problem(mask)
    spoilt = tuple(
        jnp.where(sick[..., None, None], jnp.nan, x) if name in planted else x
        for name, x in zip("qkvd", arrays)
    )
    clean = with_gradients(tiled, arrays, mask, activation)
    outputs = with_gradients(tiled, spoilt, mask, activation)
    sees = (np.asarray(dense_mask(mask)) & sick[:, None, :]).any(-1) & np.asarray(mask.valid)
    np.testing.assert_array_equal(np.isnan(outputs[0]).all((2, 3)), sees)
    others = ~((member == 2) & sick.any(1, keepdims=True))
    assert sick.any()
    for x, y in zip(outputs, clean):
        np.testing.assert_array_equal(np.asarray(x)[others], np.asarray(y)[others])


@pytest.mark.parametrize("tile", [5, 8])
@pytest.mark.parametrize("kind", MASKS)
def test_plans_visit_every_needed_tile_once(kind: str, tile: int) -> None:
    t = MASKS[kind].lo.shape[1] // tile * tile
    mask = jax.tree.map(lambda x: np.asarray(x)[:, :t], MASKS[kind])
    mask = mask._replace(hi=np.minimum(mask.hi, t))
    allowed = np.asarray(dense_mask(mask)) & np.asarray(mask.valid)[..., None]
    tiles = t // tile
    blocks = allowed.reshape(-1, tiles, tile, tiles, tile).any((2, 4))

    @jax.jit
    def visits(mask: Mask) -> Any:
        """Return the tiles of all steps, and how many of them are visits, of both plans."""
        every = jnp.arange(len(BATCH.member) * tiles)[:, None], jnp.arange(tiles)
        return [(plan.tile(*every), plan.visits) for plan in _plans(mask, tile)]

    for (visited, count), needed in zip(visits(mask), (blocks, blocks.swapaxes(1, 2))):
        for row, n, wanted in zip(np.asarray(visited), count, needed.reshape(-1, tiles)):
            assert row[:n].tolist() == np.flatnonzero(wanted).tolist()


LENGTH = 1024


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_lowering_for_tpu_has_three_kernels_and_no_array_of_pairs(dtype: Any) -> None:
    def exported(function: Any) -> str:
        def step(arrays: Arrays, mask: Mask) -> Arrays:
            return with_gradients(function, arrays, mask, "softmax")

        ints = jax.ShapeDtypeStruct((2, LENGTH), jnp.int32)
        mask = Mask(ints, ints, jax.ShapeDtypeStruct((2, LENGTH), jnp.bool_), ints)
        arrays = tuple(jax.ShapeDtypeStruct((2, LENGTH, h, 64), dtype) for h in (H, G, G, H))
        return jax.export.export(jax.jit(step), platforms=["tpu"])(arrays, mask).mlir_module()

    pairs = re.compile(rf"tensor<(?:\d+x)*{LENGTH}x(?:\d+x)*{LENGTH}x")
    text = exported(lambda *args: attend_tpu(*args)[0])
    assert text.count("@tpu_custom_call(") == 3
    assert not pairs.search(text)
    assert pairs.search(exported(dense))
