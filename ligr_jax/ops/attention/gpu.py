"""Attention on NVIDIA GPUs as Pallas Triton kernels that skip tiles outside of all ranges.

Why Triton: one source serves Ampere and Hopper, and it runs on a CPU in interpret mode, so all
tests run without a GPU. JAX 0.11 deprecated Triton in Pallas; 0.12 warns and works. Where it is
gone, `attend` takes the blocked form of plain XLA. There are two ways to keep a kernel then, not
taken yet. Pallas's Mosaic GPU is written against the instructions of Hopper or Blackwell: an A100
needs another kernel, and only a GPU can show that its pipelines are right. jax-triton calls kernels
in Triton's own language, and brings a second compiler into every environment.

A program owns one tile of tokens and sweeps over tiles of other tokens: queries sweep over the keys
they attend to (forward, dQ), keys sweep over the queries that attend to them (dK, dV). Ranges never
decrease along a row, so a tile sweeps one contiguous stretch. The part of the stretch that all
tokens of the tile have in common is contiguous too, and needs no mask. XLA computes both before the
kernels start. The own edges of history masks, t to t and t to t - 1, lie outside of the ranges; the
state of a sweep is initialized from them.

    softmax          weight = 2^(s log2(e) - norm)    ds = weight (dp - delta)    dp = dO v
    silu, sigmoid    weight = act(s) norm             ds = act'(s) norm dp        norm = 1 / keys

Softmax's norm is the log2 of the sum of exponentials, and delta = sum(dO O) minus the gradient of
the norm in base e. With q, k, v and O, these are all that the backward pass needs. Memory is linear
in T.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from ligr_jax.ops.attention.scores import LOWEST, Activation
from ligr_jax.ops.attention.tilings import stored_tiling, tiling_name
from ligr_jax.ops.masks import Mask, allowed_keys

# The score of a masked pair. It is finite, so its weight and slope are never NaN; both are 0 if the
# query has any allowed key. The outputs of other queries are set to 0.
_MASKED_SCORE = LOWEST
Ref = Any  # a Pallas reference to an array in the GPU's memory
Carry = TypeVar("Carry")


class Tile(NamedTuple):
    """Tokens that a program owns, tokens per step of its sweep, warps and pipeline stages."""

    owned: int
    seen: int
    warps: int = 4
    stages: int = 2


class Tiling(NamedTuple):
    """Tiles of the forward kernel, and of both backward kernels."""

    forward: Tile
    backward: Tile


def attend_gpu(
    q_BTHK: jax.Array,
    k_BTGK: jax.Array,
    v_BTGK: jax.Array,
    mask: Mask,
    activation: Activation,
    interpret: bool = False,
    tiling: Tiling | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Compute `attend_with_normalizer` without a bias.

    float32 products use full float32 precision (no TF32); bfloat16 products have float32 sums.

    Args:
        q_BTHK, k_BTGK, v_BTGK, mask, activation: as in `attend`; one dtype, K up to 256.
        interpret: run the kernels as plain JAX on any device; slow, for tests.
        tiling: replaces the measured one of this device (`tilings`) and that of `choose_tiling`;
            sides are powers of two, at least 16 on a GPU.

    Returns:
        The output [B, T, H, K], and the normalizer [B, T, H].
    """
    width = q_BTHK.shape[-1]
    # Sides of Triton tiles are powers of two, those of products at least 16. Zero columns change no
    # score.
    missing = max(16, pl.next_power_of_2(width)) - width
    q, k, v = (jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, missing))) for x in (q_BTHK, k_BTGK, v_BTGK))
    has_own = mask.own is not None
    plan = _Plan(
        activation=activation,
        scale=width**-0.5,
        has_own=has_own,
        tiling=tiling
        or _measured(width, q.dtype, has_own)
        or choose_tiling(width, q.dtype, has_own),
        interpret=interpret,
    )
    inputs = _Inputs(q, k, v, mask.lo, mask.hi, allowed_keys(mask), mask.valid.astype(jnp.int32))
    out_BTHK, lse_BTH = _attend(plan, inputs)
    return out_BTHK[..., :width], lse_BTH


def _measured(width: int, dtype: jax.typing.DTypeLike, has_own: bool) -> Tiling | None:
    sizes = stored_tiling(tiling_name("gpu", has_own, dtype, width))
    return sizes and Tiling(*(Tile(*tile) for tile in sizes))


def choose_tiling(width: int, dtype: jax.typing.DTypeLike, has_own: bool) -> Tiling:
    """Choose tiles that fit an A100's shared memory, as flash attention does; not measured.

    Histories are long and get large tiles. Sessions have tens of items: small tiles waste least.

    Args:
        width: K, before padding.
        dtype: of queries, keys and values.
        has_own: whether the mask has own edges, i.e. is a history mask.
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
    """Static parameters of the kernels; `scale` multiplies the scores."""

    activation: Activation
    scale: float
    has_own: bool
    tiling: Tiling
    interpret: bool


class _Inputs(NamedTuple):
    """Inputs of every kernel. In a kernel, references to the arrays of one row and head.

    q: [B, T, H, K]; k, v: [B, T, G, K].
    lo, hi, keys: int32 [B, T], zero in padding. `keys` is the number of allowed keys, of which
        keys - (hi - lo) are own edges: none, t, or t and t - 1.
    valid: int32 [B, T], 0 in padding.
    """

    q: jax.Array
    k: jax.Array
    v: jax.Array
    lo: jax.Array
    hi: jax.Array
    keys: jax.Array
    valid: jax.Array


class _Saved(NamedTuple):
    """Further inputs of the backward kernels.

    d_out: [B, T, H, K]; norm, delta: float32 [B, H, T]. In a kernel, references to the arrays of
    one row and head, or the loaded values of some of its queries.
    """

    d_out: jax.Array
    norm: jax.Array
    delta: jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(plan: _Plan, x: _Inputs) -> tuple[jax.Array, jax.Array]:
    return _attend_forward(plan, x)[0]


def _attend_forward(plan: _Plan, x: _Inputs) -> tuple[tuple[jax.Array, jax.Array], tuple[Any, ...]]:
    batch, tokens, heads, _ = x.q.shape
    tile = plan.tiling.forward
    outputs = [
        jax.ShapeDtypeStruct(x.q.shape, x.q.dtype),
        jax.ShapeDtypeStruct((batch, heads, tokens), jnp.float32),
    ]
    out, norm = _launch(_forward_kernel, plan, tile, _seen_keys(x, tile), (x,), outputs)
    lse_BHT = jnp.where((x.keys > 0)[:, None], norm / math.log2(math.e), LOWEST)
    return (out, jnp.moveaxis(lse_BHT, 1, 2)), (x, out, norm)


def _attend_backward(
    plan: _Plan, residuals: tuple[Any, ...], gradients: tuple[jax.Array, jax.Array]
) -> tuple[_Inputs]:
    x, out, norm = residuals
    d_out, d_lse_BTH = gradients
    delta = jnp.zeros_like(norm)
    if plan.activation == "softmax":
        delta = jnp.einsum("BTHK,BTHK->BHT", out, d_out, preferred_element_type=jnp.float32)
        delta -= jnp.moveaxis(d_lse_BTH, 2, 1)
    inputs = (x, _Saved(d_out, norm, delta))
    tile = plan.tiling.backward
    outputs = [jax.ShapeDtypeStruct(x.q.shape, x.q.dtype)]
    (dq,) = _launch(_dq_kernel, plan, tile, _seen_keys(x, tile), inputs, outputs)

    # Each query head writes its own dK and dV, in float32 if several share a key head; these are
    # summed here.
    group = x.q.shape[2] // x.k.shape[2]
    outputs = [
        jax.ShapeDtypeStruct(x.q.shape, jnp.float32 if group > 1 else array.dtype)
        for array in (x.k, x.v)
    ]
    per_head = _launch(_dkv_kernel, plan, tile, _seeing_queries(x, tile), inputs, outputs)
    dk, dv = (
        gradient.reshape(*array.shape[:3], group, -1).sum(axis=3).astype(array.dtype)
        for gradient, array in zip(per_head, (x.k, x.v))
    )
    return (_Inputs(dq, dk, dv, None, None, None, None),)  # type: ignore[arg-type]


_attend.defvjp(_attend_forward, _attend_backward)


def _launch(
    kernel: Callable[..., None],
    plan: _Plan,
    tile: Tile,
    sweeps: jax.Array,
    inputs: tuple[Any, ...],
    outputs: Sequence[jax.ShapeDtypeStruct],
) -> list[jax.Array]:
    """Run one program per (tile, head, row), which reads whole rows and writes its own tokens.

    Args:
        kernel: called with references to the sweep, to `inputs` and to `outputs`.
        plan: static parameters.
        tile: sizes, warps and stages.
        sweeps: int32 [B, tiles, 4], the sweep of each tile.
        inputs: arrays to read.
        outputs: shapes and dtypes of the arrays to write.
    """
    batch, _, heads, _ = outputs[0].shape
    sweep_spec = pl.BlockSpec((None, None, sweeps.shape[2]), lambda i, h, b: (b, i, 0))
    result: list[jax.Array] = pl.pallas_call(
        functools.partial(kernel, plan=plan),
        grid=(sweeps.shape[1], heads, batch),
        in_specs=[sweep_spec, *jax.tree.map(lambda x: _read(x, heads), inputs)],
        out_specs=[_written(x, tile.owned) for x in outputs],
        out_shape=outputs,
        compiler_params=triton.CompilerParams(num_warps=tile.warps, num_stages=tile.stages),
        interpret=plan.interpret,
    )(sweeps, *inputs)
    return result


def _read(x: jax.Array, heads: int) -> pl.BlockSpec:
    """Return the block of all tokens of one row, for [B, T, H or G, K], [B, H, T] or [B, T]."""
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
    """Return the block of a program's own tokens, for [B, T, H, K] or [B, H, T]."""
    if len(x.shape) == 3:
        return pl.BlockSpec((None, None, owned), lambda i, h, b: (b, h, i))
    return pl.BlockSpec((None, owned, None, x.shape[3]), lambda i, h, b: (b, i, h, 0))


# ---- Sweeps: the tiles to visit, computed by XLA before the kernels start ----


def _seen_keys(x: _Inputs, tile: Tile) -> jax.Array:
    """Return the sweeps of query tiles: from the lowest `lo` to the highest `hi` of real tokens."""
    first = jnp.arange(0, x.lo.shape[1], tile.owned)
    real = jnp.sum(x.valid, axis=1, keepdims=True)
    last = jnp.maximum(jnp.minimum(first + tile.owned, real) - 1, 0)
    low, high = x.lo[:, first], x.hi[:, first]
    last_low, last_high = (jnp.take_along_axis(ends, last, axis=1) for ends in (x.lo, x.hi))
    return _sweeps(low, last_low, high, jnp.where(first < real, last_high, low), tile.seen)


def _seeing_queries(x: _Inputs, tile: Tile) -> jax.Array:
    """Return the sweeps of key tiles, over the queries that attend to some key of the tile.

    Key j is seen by the queries with lo <= j < hi. Both ends are sorted along a row, so these are
    the queries from the first with hi > j to the last with lo <= j.
    """
    tokens = x.lo.shape[1]
    first = jnp.arange(0, tokens, tile.owned)
    last = jnp.minimum(first + tile.owned, tokens) - 1
    search = functools.partial(jnp.searchsorted, side="right", method="scan_unrolled")

    def not_above(keys: jax.Array, ends: jax.Array) -> jax.Array:
        """Count the elements of a row's sorted `ends` that are not above each key."""
        ends = jnp.where(x.valid > 0, ends, tokens)  # padding lies above every key
        return jax.vmap(search, (0, None))(ends, keys)

    start, common_start = not_above(first, x.hi), not_above(last, x.hi)
    common_end, end = not_above(first, x.lo), not_above(last, x.lo)
    return _sweeps(start, common_start, common_end, end, tile.seen)


def _sweeps(
    start: jax.Array, common_start: jax.Array, common_end: jax.Array, end: jax.Array, seen: int
) -> jax.Array:
    """Encode each sweep as (start, a, b, n), counted in tiles of `seen` tokens from `start`.

    Tiles 0..n-1 reach `end`; tiles a..b-1 lie within the common stretch and need no mask.

    Args:
        start, end: int [B, tiles], the stretch that some token of the tile needs.
        common_start, common_end: int [B, tiles], the stretch that all tokens of the tile need.
        seen: tokens per tile of the sweep.

    Returns:
        int32 [B, tiles, 4].
    """
    n = -((start - jnp.maximum(start, end)) // seen)
    a = jnp.clip(-((start - common_start) // seen), 0, n)
    b = jnp.clip((common_end - start) // seen, a, n)
    return jnp.stack([start, a, b, n], axis=-1).astype(jnp.int32)


def _sweep(
    sweep_ref: Ref, seen: int, visit: Callable[[Carry, jax.Array, bool], Carry], carry: Carry
) -> Carry:
    """Fold `visit(carry, tokens, masked)` over the tiles of a sweep.

    There are three loops instead of one with a branch, because Triton overlaps loads and products
    only in loops without branches.
    """
    start, *ends = (sweep_ref[i] for i in range(4))
    begin: Any = 0
    for end, masked in zip(ends, (True, False, True)):

        def step(i: jax.Array, carry: Carry, masked: bool = masked) -> Carry:
            return visit(carry, start + i * seen + jnp.arange(seen), masked)

        carry = jax.lax.fori_loop(begin, end, step, carry)
        begin = end
    return carry


# ---- Kernels for one row and head. Scores are [queries, keys] for the output and dQ, and
# [keys, queries] for dK and dV, so that weights are never transposed.


class _Queries(NamedTuple):
    """Loaded values of some queries: q [tokens, K], and lo, hi, keys [tokens]."""

    q: jax.Array
    lo: jax.Array
    hi: jax.Array
    keys: jax.Array


class _State(NamedTuple):
    """State of an online softmax: weighted sum of values, highest score, sum of weights."""

    out: jax.Array
    top: jax.Array
    total: jax.Array


def _forward_kernel(
    sweep_ref: Ref, x: _Inputs, out_ref: Ref, norm_ref: Ref, *, plan: _Plan
) -> None:
    """Write the output and the norm of the program's own queries."""
    tile = plan.tiling.forward
    softmax = plan.activation == "softmax"
    tokens = _owned(tile)
    query = _queries(x, tokens)
    share = 1.0 / jnp.maximum(query.keys, 1).astype(jnp.float32)  # the norm of silu and sigmoid

    # The state before the sweep: the edges t to t and t to t - 1, for all queries at once.
    def own_edges() -> _State:
        scores, values = [], []
        for back in (0, 1):
            exists = _own_edges(x, tokens) > back
            key = jnp.where(exists, tokens - back, tokens)
            scores.append(_edge_scores(plan, query.q, _rows(x.k, key), exists))
            values.append(_rows(x.v, key))
        top = jnp.maximum(*scores)
        one, two = (_weights(plan, s, top if softmax else share)[0] for s in scores)
        return _State(one[:, None] * values[0] + two[:, None] * values[1], top, one + two)

    # One step of the sweep: fold a tile of keys into the state.
    def visit(state: _State, keys: jax.Array, masked: bool) -> _State:
        v = _rows(x.v, keys)
        scores = _scores(plan, query.q, _rows(x.k, keys))
        if masked:
            scores = _masked(scores, query.lo[:, None], keys[None], query.hi[:, None])
        if not softmax:
            weights, _ = _weights(plan, scores, share[:, None])
            return state._replace(out=state.out + _dot(weights.astype(v.dtype), v))
        top = jnp.maximum(state.top, jnp.max(scores, axis=1))
        weights, _ = _weights(plan, scores, top[:, None])
        shrink = jnp.exp2(state.top - top)
        out = state.out * shrink[:, None] + _dot(weights.astype(v.dtype), v)
        return _State(out, top, state.total * shrink + jnp.sum(weights, axis=1))

    zeros = jnp.zeros(tokens.shape, jnp.float32)
    empty = _State(
        out=jnp.zeros(query.q.shape, jnp.float32), top=zeros + _MASKED_SCORE, total=zeros
    )
    state = _sweep(sweep_ref, tile.seen, visit, own_edges() if plan.has_own else empty)
    out = state.out / state.total[:, None] if softmax else state.out
    norm = state.top + jnp.log2(state.total) if softmax else share
    _write(out_ref, jnp.where(query.keys[:, None] > 0, out, 0.0), tokens, x.q.shape[0])
    _write(norm_ref, jnp.where(query.keys > 0, norm, 0.0), tokens, x.q.shape[0])


def _dq_kernel(sweep_ref: Ref, x: _Inputs, saved: _Saved, dq_ref: Ref, *, plan: _Plan) -> None:
    """Write dQ of the program's own queries, swept over their keys."""
    tile = plan.tiling.backward
    tokens = _owned(tile)
    query, upstream = _queries(x, tokens), _upstream(saved, tokens)

    def own_edges() -> jax.Array:
        dq = zeros
        for back in (0, 1):
            exists = _own_edges(x, tokens) > back
            key = jnp.where(exists, tokens - back, tokens)
            k = _rows(x.k, key)
            _, slopes = _weights(plan, _edge_scores(plan, query.q, k, exists), upstream.norm)
            ds = slopes * (_edge_dot(upstream.d_out, _rows(x.v, key)) - upstream.delta)
            dq += ds[:, None] * k
        return dq

    def visit(dq: jax.Array, keys: jax.Array, masked: bool) -> jax.Array:
        k, v = _rows(x.k, keys), _rows(x.v, keys)
        scores = _scores(plan, query.q, k)
        if masked:
            scores = _masked(scores, query.lo[:, None], keys[None], query.hi[:, None])
        _, slopes = _weights(plan, scores, upstream.norm[:, None])
        ds = slopes * (_dot(upstream.d_out, v, transposed=True) - upstream.delta[:, None])
        return dq + _dot(ds.astype(k.dtype), k)

    zeros = jnp.zeros(query.q.shape, jnp.float32)
    dq = _sweep(sweep_ref, tile.seen, visit, own_edges() if plan.has_own else zeros)
    _write(dq_ref, jnp.where(query.keys[:, None] > 0, dq * plan.scale, 0.0), tokens, x.q.shape[0])


def _dkv_kernel(
    sweep_ref: Ref, x: _Inputs, saved: _Saved, dk_ref: Ref, dv_ref: Ref, *, plan: _Plan
) -> None:
    """Write dK and dV of the program's own keys, swept over the queries that attend to them."""
    tile = plan.tiling.backward
    tokens = _owned(tile)
    k, v = _rows(x.k, tokens), _rows(x.v, tokens)
    Sums = tuple[jax.Array, jax.Array]

    def own_edges() -> Sums:
        dk, dv = zeros
        # Key t is an own edge of the queries t and t + 1.
        for ahead in (0, 1):
            exists = _own_edges(x, tokens + ahead) > ahead
            queries = jnp.where(exists, tokens + ahead, tokens)
            query, upstream = _queries(x, queries), _upstream(saved, queries)
            weights, slopes = _weights(plan, _edge_scores(plan, query.q, k, exists), upstream.norm)
            dk += (slopes * (_edge_dot(upstream.d_out, v) - upstream.delta))[:, None] * query.q
            dv += weights[:, None] * upstream.d_out
        return dk, dv

    def visit(sums: Sums, queries: jax.Array, masked: bool) -> Sums:
        query, upstream = _queries(x, queries), _upstream(saved, queries)
        scores = _scores(plan, k, query.q)
        if masked:
            scores = _masked(scores, query.lo[None], tokens[:, None], query.hi[None])
        weights, slopes = _weights(plan, scores, upstream.norm[None])
        ds = slopes * (_dot(v, upstream.d_out, transposed=True) - upstream.delta[None])
        dk = sums[0] + _dot(ds.astype(query.q.dtype), query.q)
        return dk, sums[1] + _dot(weights.astype(upstream.d_out.dtype), upstream.d_out)

    zeros = jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32)
    dk, dv = _sweep(sweep_ref, tile.seen, visit, own_edges() if plan.has_own else zeros)
    _write(dk_ref, dk * plan.scale, tokens, x.k.shape[0])
    _write(dv_ref, dv, tokens, x.k.shape[0])


def _owned(tile: Tile) -> jax.Array:
    """Return the token indices of this program; some may lie beyond the row's end."""
    return pl.program_id(0) * tile.owned + jnp.arange(tile.owned)


def _queries(x: _Inputs, tokens: jax.Array) -> _Queries:
    """Load the queries with the given token indices."""
    return _Queries(_rows(x.q, tokens), *(_numbers(ref, tokens) for ref in (x.lo, x.hi, x.keys)))


def _upstream(x: _Saved, tokens: jax.Array) -> _Saved:
    """Load the output's gradient and the statistics of the queries with the given indices."""
    return _Saved(_rows(x.d_out, tokens), _numbers(x.norm, tokens), _numbers(x.delta, tokens))


def _own_edges(x: _Inputs, queries: jax.Array) -> jax.Array:
    """Return the number of own edges of each query: 0 in padding, 1 for t, 2 for t and t - 1.

    Callers replace the other end of a missing edge by the token itself, not by its neighbour: the
    neighbour may belong to another member, and zero times its NaN is NaN.
    """
    lo, hi, keys = (_numbers(ref, queries) for ref in (x.lo, x.hi, x.keys))
    return keys - (hi - lo)


def _rows(ref: Ref, tokens: jax.Array) -> jax.Array:
    """Load [tokens, K] of a row; an index beyond its end gives the last token, to be masked."""
    length, width = ref.shape
    result: jax.Array = ref[jnp.minimum(tokens, length - 1)[:, None], jnp.arange(width)[None]]
    return result


def _numbers(ref: Ref, tokens: jax.Array) -> jax.Array:
    """Load [tokens] of a row; zero beyond its end, which means no range and no own edge."""
    return triton.load(ref.at[tokens], mask=tokens < ref.shape[0], other=0)


def _write(ref: Ref, x: jax.Array, tokens: jax.Array, length: int) -> None:
    """Write the tokens that are not beyond the row's end."""
    inside = (tokens < length).reshape(-1, *(1,) * (x.ndim - 1))
    triton.store(ref, x.astype(ref.dtype), mask=jnp.broadcast_to(inside, x.shape))


def _dot(a: jax.Array, b: jax.Array, transposed: bool = False) -> jax.Array:
    """Return a @ b, or a @ b^T if `transposed`, in float32."""
    contracted = ((1,), (1,)) if transposed else ((1,), (0,))
    return jax.lax.dot_general(
        a,
        b,
        (contracted, ((), ())),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )


def _edge_dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return the inner product of each pair of rows of two [tokens, K], in float32."""
    return jnp.sum(a.astype(jnp.float32) * b.astype(jnp.float32), axis=1)


def _scores(plan: _Plan, a: jax.Array, b: jax.Array) -> jax.Array:
    return _dot(a, b, transposed=True) * _score_scale(plan)


def _edge_scores(plan: _Plan, q: jax.Array, k: jax.Array, exists: jax.Array) -> jax.Array:
    return jnp.where(exists, _edge_dot(q, k) * _score_scale(plan), _MASKED_SCORE)


def _score_scale(plan: _Plan) -> float:
    """Return the factor of scores; softmax's are in base 2, as the GPU's exponential is."""
    return plan.scale * (math.log2(math.e) if plan.activation == "softmax" else 1.0)


def _masked(scores: jax.Array, lo: jax.Array, keys: jax.Array, hi: jax.Array) -> jax.Array:
    return jnp.where((lo <= keys) & (keys < hi), scores, _MASKED_SCORE)


def _weights(plan: _Plan, scores: jax.Array, norm: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return weights and their derivatives by scores in base e.

    For softmax, the derivative still lacks the term with `delta`, which callers subtract.
    """
    if plan.activation == "softmax":
        weights = jnp.exp2(scores - norm)
        return weights, weights
    gate = 1.0 / (1.0 + jnp.exp(-scores))
    if plan.activation == "sigmoid":
        return gate * norm, gate * (1.0 - gate) * norm
    return scores * gate * norm, gate * (1.0 + scores * (1.0 - gate)) * norm
