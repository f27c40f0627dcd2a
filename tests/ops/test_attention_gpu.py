"""Laws of the GPU kernels, in interpret mode: they equal `attend_dense`, and they lower."""

import functools
import itertools
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from ligr_jax.ops.attention import Activation, tilings
from ligr_jax.ops.attention.dense import attend_dense
from ligr_jax.ops.attention.gpu import (
    Tile,
    Tiling,
    _Inputs,
    _seeing_queries,
    _seen_keys,
    attend_gpu,
)
from ligr_jax.ops.masks import Mask, allowed_keys, dense_mask, history_mask, session_mask
from tests.batches import Layout, random_batch, random_layout

pytestmark = pytest.mark.filterwarnings("ignore:The Pallas Triton backend:DeprecationWarning")
N = 21  # neither N nor 2N is a multiple of a tile
SMALL = Tiling(Tile(8, 4), Tile(4, 8))
MASKS: dict[str, Callable[[jax.Array, jax.Array], Mask]] = {
    "session": history_mask,
    "causal": functools.partial(history_mask, kind="causal"),
    "in-session": session_mask,
}
# Padding; a session longer than every tile; sessions of one item; a row of padding only.
LAYOUT: Layout = [[[2, 3, 1], [4]], [[12, 1], [1, 1, 1, 2]], [[1] * 9, [1]], []]
Arrays = tuple[jax.Array, ...]
Attention = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def make_mask(kind: str, layout: Layout, impressions: int = N) -> Mask:
    batch = random_batch(layout, impressions)
    return jax.jit(MASKS[kind])(batch.member, batch.session)


def make_qkv(
    mask: Mask, heads: int = 2, groups: int = 2, width: int = 16, dtype: type = jnp.float32
) -> tuple[Arrays, jax.Array]:
    """Return q, k, v, and a gradient of the output."""
    rng = np.random.default_rng(0)
    shapes = [(*mask.lo.shape, h, width) for h in (heads, groups, groups, heads)]
    q, k, v, d_out = (jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes)
    return (q, k, v), d_out


def with_gradients(attend: Attention) -> Callable[[Arrays, jax.Array], list[jax.Array]]:
    """Return a function that computes the output, and the gradients of q, k and v."""

    @jax.jit
    def run(qkv: Arrays, d_out: jax.Array) -> list[jax.Array]:
        out, pull = jax.vjp(attend, *qkv)
        return [out, *pull(d_out.astype(out.dtype))]

    return run


def assert_close(got: list[jax.Array], wanted: list[jax.Array], relative: float) -> None:
    for x, y in zip(got, wanted, strict=True):
        x, y = (np.asarray(a, np.float32) for a in (x, y))
        np.testing.assert_allclose(x, y, rtol=0, atol=relative * abs(y).max())


def kernels(
    mask: Mask, activation: Activation = "softmax", tiling: Tiling | None = SMALL
) -> Attention:
    return lambda q, k, v: attend_gpu(q, k, v, mask, activation, interpret=True, tiling=tiling)[0]


def dense(mask: Mask, activation: Activation = "softmax") -> Attention:
    return lambda q, k, v: attend_dense(q, k, v, mask, activation, None)[0]


@pytest.mark.parametrize(
    ("kind", "activation"),
    [("causal", "softmax"), *itertools.product(("session", "in-session"), get_args(Activation))],
)
def test_kernels_equal_the_dense_form_with_grouped_heads(kind: str, activation: Activation) -> None:
    mask = make_mask(kind, LAYOUT + random_layout(np.random.default_rng(1), 2, N))
    qkv, d_out = make_qkv(mask, heads=4, groups=2)
    got = with_gradients(kernels(mask, activation))(qkv, d_out)
    assert_close(got, with_gradients(dense(mask, activation))(qkv, d_out), 1e-5)
    padding = ~np.asarray(mask.valid)
    for x in got:
        assert (np.asarray(x)[padding] == 0).all()


@pytest.mark.parametrize("kind", ["session", "in-session"])
def test_bfloat16_agrees_with_float32_within_its_rounding(kind: str) -> None:
    mask = make_mask(kind, LAYOUT)
    qkv, d_out = make_qkv(mask, dtype=jnp.bfloat16)
    got = with_gradients(kernels(mask))(qkv, d_out)
    assert all(x.dtype == jnp.bfloat16 for x in got)
    exact = tuple(x.astype(jnp.float32) for x in qkv)
    assert_close(got, with_gradients(dense(mask))(exact, d_out), 2e-2)


@pytest.mark.parametrize(("width", "tiling"), [(24, SMALL), (256, None)])
def test_any_width_and_rows_shorter_than_a_tile(width: int, tiling: Tiling | None) -> None:
    mask = make_mask("session", [[[2, 1], [1]], [[1]]], 5)
    qkv, d_out = make_qkv(mask, width=width)
    got = with_gradients(kernels(mask, tiling=tiling))(qkv, d_out)
    assert_close(got, with_gradients(dense(mask))(qkv, d_out), 1e-5)


def test_measured_tilings_of_the_device_replace_the_chosen_ones(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tilings, "FILE", tmp_path / "tilings.json")
    mask = make_mask("session", LAYOUT)
    (q, k, v), _ = make_qkv(mask)

    def tiles() -> set[str]:
        attend = jax.make_jaxpr(lambda: attend_gpu(q, k, v, mask, "softmax", interpret=True))
        return set(re.findall(r"grid=\((\d+)", str(attend())))

    assert tiles() == {str(-(-2 * N // 32))}  # of choose_tiling
    name = tilings.tiling_name("gpu", True, jnp.float32, 16)
    other = tilings.tiling_name("gpu", False, jnp.float32, 16)
    sizes = [[8, 4, 4, 2], [4, 8, 4, 2]]
    tilings.store_tilings("cpu", {other: [[16, 16, 4, 2]] * 2}, tilings.FILE)
    tilings.store_tilings("NVIDIA H100", {name: [[16, 16, 4, 2]] * 2}, tilings.FILE)
    assert tiles() == {str(-(-2 * N // 32))}
    tilings.store_tilings("cpu", {name: sizes}, tilings.FILE)
    assert tiles() == {str(-(-2 * N // 8))}
    assert set(json.loads(tilings.FILE.read_text())["cpu"]) == {name, other}


def test_kernels_work_under_vmap_and_checkpoint() -> None:
    mask = make_mask("session", LAYOUT)
    pairs = jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), mask)
    qkv, d_out = make_qkv(mask, heads=1, groups=1)

    def split(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        q, k, v = (x.reshape(2, 2, *x.shape[1:]) for x in (q, k, v))
        attend = jax.checkpoint(lambda q, k, v, mask: kernels(mask)(q, k, v))
        return jax.vmap(attend)(q, k, v, pairs).reshape(d_out.shape)

    got = with_gradients(split)(qkv, d_out)
    assert_close(got, with_gradients(dense(mask))(qkv, d_out), 1e-5)


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("tile", [Tile(8, 4), Tile(4, 8), Tile(64, 16)])
def test_sweeps_cover_every_allowed_pair_and_unmasked_tiles_have_no_others(
    kind: str, tile: Tile
) -> None:
    mask = make_mask(kind, LAYOUT + random_layout(np.random.default_rng(2), 20, N))
    none = jnp.zeros(())
    x = _Inputs(
        none, none, none, mask.lo, mask.hi, jax.jit(allowed_keys)(mask), mask.valid.astype(np.int32)
    )
    tokens, valid = mask.lo.shape[1], np.asarray(mask.valid)
    pairs = np.asarray(dense_mask(mask)) & valid[:, :, None]
    if mask.own is not None:  # own edges are not part of sweeps
        position = np.arange(tokens)
        pairs &= (position != position[:, None]) & (position != np.asarray(mask.own)[:, :, None])
    for find, wanted in ((_seen_keys, pairs), (_seeing_queries, pairs.mT)):
        sweeps = np.asarray(jax.jit(find, static_argnums=1)(x, tile))
        reached = np.zeros_like(wanted)
        for row, i in np.ndindex(*sweeps.shape[:2]):
            start, a, b, n = sweeps[row, i]
            assert 0 <= a <= b <= n
            owned = slice(i * tile.owned, (i + 1) * tile.owned)
            assert n == 0 or valid[row, owned].any()
            reached[row, owned, start : start + n * tile.seen] = True
            unmasked = wanted[row, owned, start + a * tile.seen : start + b * tile.seen]
            # Padding is not written, so its pairs do not matter in sweeps of queries.
            assert unmasked[valid[row, owned] | (wanted is not pairs)].all()
        assert reached[wanted].all()


@pytest.mark.parametrize("kind", ["session", "in-session"])
def test_tiles_outside_of_the_ranges_are_never_read(kind: str) -> None:
    # Poison whole tiles of 8 tokens with NaN: those of one of two members and, in-session, of one
    # session of the other member. If such a tile were multiplied, even by zero, NaN would spread.
    own = 1 if kind == "in-session" else 2
    sessions = [8 // own] * 4
    mask = make_mask(kind, [[sessions, sessions]], 72 // own)
    poisoned = np.zeros(72, bool)
    poisoned[:32] = True
    poisoned[48:56] = kind == "in-session"
    run = with_gradients(kernels(mask, tiling=Tiling(Tile(8, 8), Tile(8, 8))))
    qkv, d_out = make_qkv(mask)
    clean = run(qkv, d_out)
    qkv = tuple(jnp.where(poisoned[:, None, None], jnp.nan, x) for x in qkv)
    for x, y in zip(run(qkv, d_out), clean, strict=True):
        assert np.isnan(np.asarray(x)[:, poisoned]).all()
        np.testing.assert_array_equal(np.asarray(x)[:, ~poisoned], np.asarray(y)[:, ~poisoned])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("kind", ["session", "in-session"])
def test_forward_and_backward_lower_for_cuda_in_linear_memory(kind: str, dtype: type) -> None:
    impressions, heads, groups, width = 300, 4, 2, 64
    tokens = impressions * (1 if kind == "in-session" else 2)
    q, k = (jax.ShapeDtypeStruct((2, tokens, h, width), dtype) for h in (heads, groups))
    ids = jax.ShapeDtypeStruct((2, impressions), jnp.int32)

    def loss(q: jax.Array, k: jax.Array, v: jax.Array, *ids: jax.Array) -> jax.Array:
        return attend_gpu(q, k, v, MASKS[kind](*ids), "softmax")[0].astype(jnp.float32).sum()

    # Name a GPU to lower for, since the machine need not have one.
    gpu = jax.sharding.AbstractDevice("NVIDIA H100", None, "gpu")
    mesh = jax.sharding.AbstractMesh((), (), abstract_device=gpu)
    triton = export.DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton")
    with jax.sharding.use_abstract_mesh(mesh):
        exported = export.export(
            jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2))),
            platforms=["cuda"],
            disabled_checks=[triton],
        )(q, k, k, ids, ids)
    text = exported.mlir_module()
    names = re.findall(r'stablehlo.custom_call @__gpu\$xla.gpu.triton.* name = "(\w+)"', text)
    assert names == ["_forward_kernel", "_dq_kernel", "_dkv_kernel"]
    tensors = re.findall(r"tensor<((?:\d+x)+)", text)
    shapes = {tuple(int(side) for side in sides.split("x")[:-1]) for sides in tensors}
    assert (2, tokens, heads, width) in shapes
    assert max(map(math.prod, shapes)) <= 2 * tokens * heads * width
    assert not any(shape.count(tokens) > 1 for shape in shapes)
