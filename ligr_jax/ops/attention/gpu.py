"""Attention on NVIDIA GPUs: tiles of scores, and only those that some token's range touches.

Why Triton: one source serves Ampere and Hopper, and it runs on a CPU in interpret mode, so that
every law is tested without a GPU. Mosaic GPU would reach more of a Hopper, but is written against
its instructions: an A100 needs other kernels, and a CPU cannot run them. JAX 0.11 announces that
Pallas will lose Triton some day; it warns, and works.

A program owns one tile of tokens and sweeps over tiles of others: queries over the keys they see
(forward, and dQ), keys over the queries that see them (dK, dV). Ranges never decrease along a row,
so a tile sweeps one stretch of tokens, and those that all of the tile agrees on are a stretch
inside of it, which needs no mask. XLA finds both before the kernels start. The own edges of
history, t to t and t to t - 1, lie outside of the ranges: a sweep starts from them.

    softmax          weight = 2^(s log2(e) - norm)    ds = weight (dp - delta)    dp = dO v
    silu, sigmoid    weight = act(s) norm             ds = act'(s) norm dp        norm = 1 / keys

Softmax's norm is the log2 of its sum, delta = sum(dO O): all the backward pass needs besides
q, k, v and O. Memory is linear in T.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from ligr_jax.ops.attention.scores import Activation
from ligr_jax.ops.masks import Mask, allowed_keys

# A forbidden score. Finite: no weight or slope of it is ever NaN, and beside a real one both are 0.
FLOOR = -1e30
Ref = Any  # of Pallas: an array in the GPU's memory
Carry = TypeVar("Carry")


class Tile(NamedTuple):
    """What one program does: tokens it owns, tokens it sees at a time; its warps and stages."""

    owned: int
    seen: int
    warps: int = 4
    stages: int = 2


class Tiling(NamedTuple):
    """Tiles of the forward kernel, and of both backward kernels."""

    forward: Tile
    backward: Tile


def attend_gpu(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: Mask,
    activation: Activation,
    interpret: bool = False,
    tiling: Tiling | None = None,
) -> jax.Array:
    """`attend` without a bias, for q [B, T, H, K] and k, v [B, T, G, K] of one type, K up to 256.

    float32 is multiplied as such (no TF32), bfloat16 with float32 sums.

    Args:
        interpret: run the kernels as plain JAX, on any device: slow, for tests.
        tiling: in place of `choose_tiling`'s; sides are powers of two, at least 16 on a GPU.
    """
    width = q.shape[-1]
    # A side of a Triton tile is a power of two, of a product at least 16. Zeros change no score.
    missing = max(16, pl.next_power_of_2(width)) - width
    q, k, v = (jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, missing))) for x in (q, k, v))
    has_own = mask.own is not None
    tiling = tiling or choose_tiling(width, q.dtype, has_own)
    plan = _Plan(activation, width**-0.5, has_own, tiling, interpret)
    out = _attend(plan, _Inputs(q, k, v, mask.lo, mask.hi, allowed_keys(mask)))
    return out[..., :width]


def choose_tiling(width: int, dtype: jax.typing.DTypeLike, has_own: bool) -> Tiling:
    """Tiles within an A100's shared memory, by the customs of flash attention; not tuned on a GPU.

    Histories are long: large tiles. Sessions are tens of items: tiles of that size waste least.
    """
    short = jnp.dtype(dtype).itemsize == 2
    if width > 128:
        tile = Tile(32, 32, warps=8) if short else Tile(16, 16, stages=1)
        return Tiling(tile._replace(owned=64) if short and has_own else tile, tile)
    if not (short and has_own):
        return Tiling(Tile(32, 32), Tile(32, 32))
    warps = 4 if width <= 64 else 8
    return Tiling(Tile(128, 64, warps, stages=3), Tile(64, 64, warps))


class _Plan(NamedTuple):
    """What is known when kernels are compiled; `scale` is that of scores."""

    activation: Activation
    scale: float
    has_own: bool
    tiling: Tiling
    interpret: bool


class _Inputs(NamedTuple):
    """Of every kernel. Padding has zeros in lo, hi and keys, each int32 [B, T].

    keys: how many are allowed; keys - (hi - lo) of them are own edges: none, t, or t and t - 1.
    """

    q: jax.Array
    k: jax.Array
    v: jax.Array
    lo: jax.Array
    hi: jax.Array
    keys: jax.Array


class _Saved(NamedTuple):
    """Of the backward kernels besides: d_out like q; norm and delta, float32 [B, H, T].

    In a kernel: of a row and head; or of some of its queries, once loaded.
    """

    d_out: jax.Array
    norm: jax.Array
    delta: jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(plan: _Plan, x: _Inputs) -> jax.Array:
    return _attend_forward(plan, x)[0]


def _attend_forward(plan: _Plan, x: _Inputs) -> tuple[jax.Array, tuple]:
    batch, tokens, heads, _ = x.q.shape
    tile = plan.tiling.forward
    like = [
        jax.ShapeDtypeStruct(x.q.shape, x.q.dtype),
        jax.ShapeDtypeStruct((batch, heads, tokens), jnp.float32),
    ]
    out, norm = _launch(_forward_kernel, plan, tile, _seen_keys(x, tile), (x,), like)
    return out, (x, out, norm)


def _attend_backward(plan: _Plan, residuals: tuple, d_out: jax.Array) -> tuple[_Inputs]:
    x, out, norm = residuals
    delta = jnp.zeros_like(norm)
    if plan.activation == "softmax":
        delta = jnp.einsum("BTHK,BTHK->BHT", out, d_out, preferred_element_type=jnp.float32)
    inputs = (x, _Saved(d_out, norm, delta))
    tile = plan.tiling.backward
    like = [jax.ShapeDtypeStruct(x.q.shape, x.q.dtype)]
    (dq,) = _launch(_dq_kernel, plan, tile, _seen_keys(x, tile), inputs, like)
    # Query heads of a group write apart, in float32, and are summed here.
    group = x.q.shape[2] // x.k.shape[2]
    like = [
        jax.ShapeDtypeStruct(x.q.shape, jnp.float32 if group > 1 else to.dtype) for to in (x.k, x.v)
    ]
    apart = _launch(_dkv_kernel, plan, tile, _seeing_queries(x, tile), inputs, like)
    dk, dv = (
        each.reshape(*to.shape[:3], group, -1).sum(axis=3).astype(to.dtype)
        for each, to in zip(apart, (x.k, x.v))
    )
    return (_Inputs(dq, dk, dv, None, None, None),)  # type: ignore[arg-type]


_attend.defvjp(_attend_forward, _attend_backward)


def _launch(
    kernel: Callable[..., None],
    plan: _Plan,
    tile: Tile,
    sweeps: jax.Array,
    inputs: tuple,
    outputs: Sequence[jax.ShapeDtypeStruct],
) -> list[jax.Array]:
    """Runs a program per (tile, head, row): it reads whole rows, and writes its own tokens."""
    batch, _, heads, _ = outputs[0].shape
    every = pl.BlockSpec((None, None, sweeps.shape[2]), lambda i, h, b: (b, i, 0))
    return pl.pallas_call(
        functools.partial(kernel, plan=plan),
        grid=(sweeps.shape[1], heads, batch),
        in_specs=[every, *jax.tree.map(lambda x: _read(x, heads), inputs)],
        out_specs=[_written(x, tile.owned) for x in outputs],
        out_shape=outputs,
        compiler_params=triton.CompilerParams(num_warps=tile.warps, num_stages=tile.stages),
        interpret=plan.interpret,
    )(sweeps, *inputs)


def _read(x: jax.Array, heads: int) -> pl.BlockSpec:
    """All tokens of one row: of [B, T, heads, K] or [B, T, G, K], [B, heads, T] or [B, T]."""
    if x.ndim == 2:
        return pl.BlockSpec((None, x.shape[1]), lambda i, h, b: (b, 0))
    if x.ndim == 3:
        return pl.BlockSpec((None, None, x.shape[2]), lambda i, h, b: (b, h, 0))
    _, tokens, groups, width = x.shape
    group = heads // groups
    return pl.BlockSpec(
        (None, tokens, None, width), lambda i, h, b: (b, 0, jax.lax.div(h, group), 0)
    )


def _written(x: jax.ShapeDtypeStruct, owned: int) -> pl.BlockSpec:
    """The owned tokens of [B, T, heads, K] or [B, heads, T]."""
    if len(x.shape) == 3:
        return pl.BlockSpec((None, None, owned), lambda i, h, b: (b, h, i))
    return pl.BlockSpec((None, owned, None, x.shape[3]), lambda i, h, b: (b, i, h, 0))


# ---- Sweeps: what to visit, found outside of the kernels ----


def _seen_keys(x: _Inputs, tile: Tile) -> jax.Array:
    """Sweeps of query tiles: from the lowest `lo` to the highest `hi` of their real tokens."""
    first = jnp.arange(0, x.lo.shape[1], tile.owned)
    real = jnp.sum(x.keys > 0, axis=1, keepdims=True)
    last = jnp.maximum(jnp.minimum(first + tile.owned, real) - 1, 0)
    low, high = x.lo[:, first], x.hi[:, first]
    last_low, last_high = (jnp.take_along_axis(ends, last, axis=1) for ends in (x.lo, x.hi))
    return _sweeps(low, last_low, high, jnp.where(first < real, last_high, low), tile.seen)


def _seeing_queries(x: _Inputs, tile: Tile) -> jax.Array:
    """Sweeps of key tiles: from the first query with `hi` above to the last with `lo` below."""
    tokens = x.lo.shape[1]
    first = jnp.arange(0, tokens, tile.owned)
    last = jnp.minimum(first + tile.owned, tokens) - 1
    search = functools.partial(jnp.searchsorted, side="right", method="scan_unrolled")

    def not_above(keys: jax.Array, ends: jax.Array) -> jax.Array:
        """How many of a row's sorted `ends` are not above each key."""
        ends = jnp.where(x.keys > 0, ends, tokens)  # padding: above every key
        return jax.vmap(search, (0, None))(ends, keys)

    start, agreed_start = not_above(first, x.hi), not_above(last, x.hi)
    agreed_end, end = not_above(first, x.lo), not_above(last, x.lo)
    return _sweeps(start, agreed_start, agreed_end, end, tile.seen)


def _sweeps(
    start: jax.Array, agreed_start: jax.Array, agreed_end: jax.Array, end: jax.Array, seen: int
) -> jax.Array:
    """int32 [B, tiles, 4] of stretches [B, tiles]: `start`; then a, b, n of tiles from there.

    Tiles 0..n reach `end`; of them a..b lie within what is agreed on.
    """
    n = -((start - jnp.maximum(start, end)) // seen)
    a = jnp.clip(-((start - agreed_start) // seen), 0, n)
    b = jnp.clip((agreed_end - start) // seen, a, n)
    return jnp.stack([start, a, b, n], axis=-1).astype(jnp.int32)


def _sweep(
    sweep_ref: Ref, seen: int, visit: Callable[[Carry, jax.Array, bool], Carry], carry: Carry
) -> Carry:
    """Carries `visit(carry, tokens, masked)` over the tiles of a sweep.

    Three loops, not a branch in one: Triton overlaps loads and products only without branches.
    """
    start, *ends = (sweep_ref[i] for i in range(4))
    begin: Any = 0
    for end, masked in zip(ends, (True, False, True)):

        def step(i: jax.Array, carry: Carry, masked: bool = masked) -> Carry:
            return visit(carry, start + i * seen + jnp.arange(seen), masked)

        carry = jax.lax.fori_loop(begin, end, step, carry)
        begin = end
    return carry


# ---- Kernels, of one row and head. Arrays of scores are [queries, keys], but [keys, queries] for
# dK and dV: weights are then never transposed.


class _Queries(NamedTuple):
    """What a program knows of some queries."""

    q: jax.Array
    lo: jax.Array
    hi: jax.Array
    keys: jax.Array


class _State(NamedTuple):
    """Of an online softmax: the sum of values, the highest score, the sum of weights."""

    out: jax.Array
    top: jax.Array
    total: jax.Array


def _forward_kernel(
    sweep_ref: Ref, x: _Inputs, out_ref: Ref, norm_ref: Ref, *, plan: _Plan
) -> None:
    tile, softmax = plan.tiling.forward, plan.activation == "softmax"
    tokens = _owned(tile)
    at = _queries(x, tokens)
    share = 1.0 / jnp.maximum(at.keys, 1).astype(jnp.float32)  # the norm of silu and sigmoid

    def own_edges() -> _State:
        scores, values = [], []
        for back in (0, 1):
            exists = _own_edges(x, tokens) > back
            key = jnp.where(exists, tokens - back, tokens)
            scores.append(_edge_scores(plan, at.q, _rows(x.k, key), exists))
            values.append(_rows(x.v, key))
        top = jnp.maximum(*scores)
        one, two = (_weights(plan, s, top if softmax else share)[0] for s in scores)
        return _State(one[:, None] * values[0] + two[:, None] * values[1], top, one + two)

    def visit(state: _State, keys: jax.Array, masked: bool) -> _State:
        v = _rows(x.v, keys)
        scores = _scores(plan, at.q, _rows(x.k, keys))
        if masked:
            scores = _masked(scores, at.lo[:, None], keys[None], at.hi[:, None])
        if not softmax:
            weights, _ = _weights(plan, scores, share[:, None])
            return state._replace(out=state.out + _dot(weights.astype(v.dtype), v))
        top = jnp.maximum(state.top, jnp.max(scores, axis=1))
        weights, _ = _weights(plan, scores, top[:, None])
        shrink = jnp.exp2(state.top - top)
        out = state.out * shrink[:, None] + _dot(weights.astype(v.dtype), v)
        return _State(out, top, state.total * shrink + jnp.sum(weights, axis=1))

    zeros = jnp.zeros(tokens.shape, jnp.float32)
    nothing = _State(jnp.zeros(at.q.shape, jnp.float32), zeros + FLOOR, zeros)
    state = _sweep(sweep_ref, tile.seen, visit, own_edges() if plan.has_own else nothing)
    out = state.out / state.total[:, None] if softmax else state.out
    norm = state.top + jnp.log2(state.total) if softmax else share
    _write(out_ref, jnp.where(at.keys[:, None] > 0, out, 0.0), tokens, x.q.shape[0])
    _write(norm_ref, jnp.where(at.keys > 0, norm, 0.0), tokens, x.q.shape[0])


def _dq_kernel(sweep_ref: Ref, x: _Inputs, saved: _Saved, dq_ref: Ref, *, plan: _Plan) -> None:
    tile = plan.tiling.backward
    tokens = _owned(tile)
    at, up = _queries(x, tokens), _upstream(saved, tokens)

    def own_edges() -> jax.Array:
        dq = nothing
        for back in (0, 1):
            exists = _own_edges(x, tokens) > back
            key = jnp.where(exists, tokens - back, tokens)
            k = _rows(x.k, key)
            _, slopes = _weights(plan, _edge_scores(plan, at.q, k, exists), up.norm)
            ds = slopes * (_edge_dot(up.d_out, _rows(x.v, key)) - up.delta)
            dq += ds[:, None] * k
        return dq

    def visit(dq: jax.Array, keys: jax.Array, masked: bool) -> jax.Array:
        k, v = _rows(x.k, keys), _rows(x.v, keys)
        scores = _scores(plan, at.q, k)
        if masked:
            scores = _masked(scores, at.lo[:, None], keys[None], at.hi[:, None])
        _, slopes = _weights(plan, scores, up.norm[:, None])
        ds = slopes * (_dot(up.d_out, v, transposed=True) - up.delta[:, None])
        return dq + _dot(ds.astype(k.dtype), k)

    nothing = jnp.zeros(at.q.shape, jnp.float32)
    dq = _sweep(sweep_ref, tile.seen, visit, own_edges() if plan.has_own else nothing)
    _write(dq_ref, jnp.where(at.keys[:, None] > 0, dq * plan.scale, 0.0), tokens, x.q.shape[0])


def _dkv_kernel(
    sweep_ref: Ref, x: _Inputs, saved: _Saved, dk_ref: Ref, dv_ref: Ref, *, plan: _Plan
) -> None:
    tile = plan.tiling.backward
    tokens = _owned(tile)
    k, v = _rows(x.k, tokens), _rows(x.v, tokens)
    Sums = tuple[jax.Array, jax.Array]

    def own_edges() -> Sums:
        dk, dv = nothing
        for ahead in (0, 1):
            exists = _own_edges(x, tokens + ahead) > ahead
            queries = jnp.where(exists, tokens + ahead, tokens)
            at, up = _queries(x, queries), _upstream(saved, queries)
            weights, slopes = _weights(plan, _edge_scores(plan, at.q, k, exists), up.norm)
            dk += (slopes * (_edge_dot(up.d_out, v) - up.delta))[:, None] * at.q
            dv += weights[:, None] * up.d_out
        return dk, dv

    def visit(sums: Sums, queries: jax.Array, masked: bool) -> Sums:
        at, up = _queries(x, queries), _upstream(saved, queries)
        scores = _scores(plan, k, at.q)
        if masked:
            scores = _masked(scores, at.lo[None], tokens[:, None], at.hi[None])
        weights, slopes = _weights(plan, scores, up.norm[None])
        ds = slopes * (_dot(v, up.d_out, transposed=True) - up.delta[None])
        dk = sums[0] + _dot(ds.astype(at.q.dtype), at.q)
        return dk, sums[1] + _dot(weights.astype(up.d_out.dtype), up.d_out)

    nothing = jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32)
    dk, dv = _sweep(sweep_ref, tile.seen, visit, own_edges() if plan.has_own else nothing)
    _write(dk_ref, dk * plan.scale, tokens, x.k.shape[0])
    _write(dv_ref, dv, tokens, x.k.shape[0])


def _owned(tile: Tile) -> jax.Array:
    """The tokens of this program, some perhaps beyond the row's end."""
    return pl.program_id(0) * tile.owned + jnp.arange(tile.owned)


def _queries(x: _Inputs, tokens: jax.Array) -> _Queries:
    return _Queries(_rows(x.q, tokens), *(_numbers(ref, tokens) for ref in (x.lo, x.hi, x.keys)))


def _upstream(x: _Saved, tokens: jax.Array) -> _Saved:
    return _Saved(_rows(x.d_out, tokens), _numbers(x.norm, tokens), _numbers(x.delta, tokens))


def _own_edges(x: _Inputs, queries: jax.Array) -> jax.Array:
    """How many they have: none in padding, else t, or t and t - 1.

    What stands in for a missing edge's other end is the token itself, not its neighbour: that may
    be of another member, and zero times its NaN is NaN.
    """
    lo, hi, keys = (_numbers(ref, queries) for ref in (x.lo, x.hi, x.keys))
    return keys - (hi - lo)


def _rows(ref: Ref, tokens: jax.Array) -> jax.Array:
    """[tokens, K] of a whole row; beyond its end the last token's, which must then be masked."""
    length, width = ref.shape
    return ref[jnp.minimum(tokens, length - 1)[:, None], jnp.arange(width)[None]]


def _numbers(ref: Ref, tokens: jax.Array) -> jax.Array:
    """[tokens] of a whole row; zeros beyond its end: no range and no own edge."""
    return triton.load(ref.at[tokens], mask=tokens < ref.shape[0], other=0)


def _write(ref: Ref, x: jax.Array, tokens: jax.Array, length: int) -> None:
    """Writes the tokens that are not beyond the row's end."""
    inside = (tokens < length).reshape(-1, *(1,) * (x.ndim - 1))
    triton.store(ref, x.astype(ref.dtype), mask=jnp.broadcast_to(inside, x.shape))


def _dot(a: jax.Array, b: jax.Array, transposed: bool = False) -> jax.Array:
    """a @ b, or a @ b^T, in float32."""
    contracted = ((1,), (1,)) if transposed else ((1,), (0,))
    return jax.lax.dot_general(
        a,
        b,
        (contracted, ((), ())),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )


def _edge_dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """Row-wise products of two [tokens, K], in float32."""
    return jnp.sum(a.astype(jnp.float32) * b.astype(jnp.float32), axis=1)


def _scores(plan: _Plan, a: jax.Array, b: jax.Array) -> jax.Array:
    return _dot(a, b, transposed=True) * _score_scale(plan)


def _edge_scores(plan: _Plan, q: jax.Array, k: jax.Array, exists: jax.Array) -> jax.Array:
    return jnp.where(exists, _edge_dot(q, k) * _score_scale(plan), FLOOR)


def _score_scale(plan: _Plan) -> float:
    """Softmax's scores are in base 2: the GPU's exponential is."""
    return plan.scale * (math.log2(math.e) if plan.activation == "softmax" else 1.0)


def _masked(scores: jax.Array, lo: jax.Array, keys: jax.Array, hi: jax.Array) -> jax.Array:
    return jnp.where((lo <= keys) & (keys < hi), scores, FLOOR)


def _weights(plan: _Plan, scores: jax.Array, norm: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Weights, and their slopes: by scores in base e, for softmax before `delta` is taken off."""
    if plan.activation == "softmax":
        weights = jnp.exp2(scores - norm)
        return weights, weights
    gate = 1.0 / (1.0 + jnp.exp(-scores))
    if plan.activation == "sigmoid":
        return gate * norm, gate * (1.0 - gate) * norm
    return scores * gate * norm, gate * (1.0 + scores * (1.0 - gate)) * norm
