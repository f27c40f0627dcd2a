"""Attention over ranges of keys as Pallas kernels for TPU: tiles that no query needs are not read.

Why not the splash attention that comes with JAX: a mask that is data fails there under `jit` (a
branch on a traced flag), and outside of it the T x T mask of every head is stored.

Scores are transposed, [keys, queries]: all there is per query (ranges, maxima, sums) is then one
row of lanes. Own edges are cells of the mask in tiles at the diagonal, which are visited for the
ranges' sake anyway where sessions are shorter than a tile.

What a query must not see never reaches it, NaN included: weights are selected, not multiplied, and
where not all queries of a tile see all of its keys, what is not finite is taken out of operands
summed over tokens. Queries that may see a NaN get it through their scores.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ligr_jax.ops.attention.scores import Activation
from ligr_jax.ops.masks import Mask, allowed_keys

LANES = 128
LARGEST_TILE = 512  # tokens
FLOOR = -1e30  # below every score, and finite: two floors differ by 0, not by NaN
POINTWISE = {"silu": jax.nn.silu, "sigmoid": jax.nn.sigmoid}


def attend_tpu(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: Mask,
    activation: Activation,
    interpret: bool = False,
) -> jax.Array:
    """`attend` without a bias, in memory linear in T; differentiable once, in q, k and v.

    For TPU v4 and newer. A kernel is one device's: shard rows or heads around it by `shard_map`
    (with `check_vma=False`). Under `vmap` it runs once per element, in a loop.

    Args:
        q: [B, T, H, K], float32 or bfloat16.
        k, v: [B, T, G, K], with H a multiple of G.
        interpret: run the kernels as plain JAX, on any device; for tests.

    Returns:
        [B, T, H, K], in q's type.
    """
    t = q.shape[1]
    tile = _round_up(pl.cdiv(t, pl.cdiv(t, LARGEST_TILE)), LANES)
    return _attend(q, k, v, mask, activation, interpret, tile)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: Mask,
    activation: Activation,
    interpret: bool,
    tile: int,
) -> jax.Array:
    """`attend_tpu` in tiles of a given number of tokens; hardware wants multiples of 128."""
    return _attend_forward(q, k, v, mask, activation, interpret, tile)[0]


def _attend_forward(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: Mask,
    activation: Activation,
    interpret: bool,
    tile: int,
) -> tuple[jax.Array, tuple[Any, ...]]:
    """The output, and what its gradient needs: the inputs, for softmax also `out` and `lse`."""
    sizes = _sizes(q, k, tile)
    padded = _pad_mask(mask, tile)
    softmax = activation == "softmax"
    flat, *lse = _launch(
        "attend_forward",
        partial(_forward_kernel, activation, q.shape[-1] ** -0.5),
        Grid(sizes, by_key=False),
        _plans(padded, tile)[0],
        _inputs(q, k, v, padded, sizes),
        [("query", q.dtype)] + [("statistic", jnp.float32)] * softmax,
        [((sizes.width, tile), 0.0), ((1, tile), FLOOR), ((1, tile), 0.0)],
        interpret,
    )
    out = _unflatten(flat, q)
    return out, (q, k, v, mask, *((out, *lse) if softmax else ()))


def _attend_backward(
    activation: Activation,
    interpret: bool,
    tile: int,
    saved: tuple[Any, ...],
    d_out: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    q, k, v, mask, *softmax = saved
    sizes = _sizes(q, k, tile)
    padded = _pad_mask(mask, tile)
    inputs = [*_inputs(q, k, v, padded, sizes), ("query", _flatten(d_out, sizes))]
    if softmax:
        out, lse = softmax
        inputs += [("statistic", lse), ("statistic", _delta(out, d_out, tile))]
    of_query, of_key = _plans(padded, tile)
    scale = q.shape[-1] ** -0.5
    (dq,) = _launch(
        "attend_query_gradient",
        partial(_query_gradient_kernel, activation, scale),
        Grid(sizes, by_key=False),
        of_query,
        inputs,
        [("query", q.dtype)],
        [((sizes.width, tile), 0.0)],
        interpret,
    )
    dk, dv = _launch(
        "attend_key_gradient",
        partial(_key_gradient_kernel, activation, scale),
        Grid(sizes, by_key=True),
        of_key,
        inputs,
        [("key", k.dtype), ("key", v.dtype)],
        [((tile, sizes.width), 0.0)] * 2,
        interpret,
    )
    return _unflatten(dq, q), _unflatten(dk, k), _unflatten(dv, v), None


_attend.defvjp(_attend_forward, _attend_backward)


# The kernels: what to do in a visited tile, and at the end of the visits.

Refs = Sequence[Any]
Visit = Callable[[jax.Array | None], None]  # given bool [keys, queries] allowed; None: all are
Finish = Callable[[], None]


def _forward_kernel(
    activation: Activation, scale: float, inputs: Refs, outputs: Refs, scratch: Refs
) -> tuple[Visit, Finish]:
    q, k, v, edges = inputs
    out, *lse = outputs
    total, top, mass = scratch  # sum of weighted values [width, queries], maxima, sum of weights

    def visit(allowed: jax.Array | None) -> None:
        scores, values = _dot(k[...], q[...], 1, 1) * scale, v[...]
        if allowed is not None:
            scores, values = scores + _taint(values), _clean(values)
        if activation == "softmax":
            scores = _select(allowed, scores, -jnp.inf)
            new_top = jnp.maximum(top[...], jnp.max(scores, axis=0, keepdims=True))
            fade = jnp.exp(top[...] - new_top)
            weights = jnp.exp(scores - new_top)
            mass[...] = fade * mass[...] + jnp.sum(weights, axis=0, keepdims=True)
            total[...] = fade * total[...]
            top[...] = new_top
        else:
            weights = _select(allowed, POINTWISE[activation](scores), 0.0)
        total[...] += _dot(values, weights.astype(values.dtype), 0, 0)

    def finish() -> None:
        if activation == "softmax":
            norm = jnp.where(mass[...] == 0, 1.0, mass[...])  # padding has none
            lse[0][...] = top[...] + jnp.log(norm)
        else:
            norm = _keys(edges)
        out[...] = (total[...] / norm).T.astype(out.dtype)

    return visit, finish


def _query_gradient_kernel(
    activation: Activation, scale: float, inputs: Refs, outputs: Refs, scratch: Refs
) -> tuple[Visit, Finish]:
    k, (dq,), (total,) = inputs[1], outputs, scratch

    def visit(allowed: jax.Array | None) -> None:
        _, slopes = _weights_and_slopes(activation, scale, inputs, allowed)
        keys = k[...] if allowed is None else _clean(k[...])
        total[...] += _dot(keys, slopes.astype(keys.dtype), 0, 0)

    def finish() -> None:
        dq[...] = (total[...] * scale).T.astype(dq.dtype)

    return visit, finish


def _key_gradient_kernel(
    activation: Activation, scale: float, inputs: Refs, outputs: Refs, scratch: Refs
) -> tuple[Visit, Finish]:
    (q, _, _, _, d_out, *_), (dk, dv), (dk_total, dv_total) = inputs, outputs, scratch

    def visit(allowed: jax.Array | None) -> None:
        weights, slopes = _weights_and_slopes(activation, scale, inputs, allowed)
        queries, pulls = q[...], d_out[...]
        if allowed is not None:
            queries, pulls = _clean(queries), _clean(pulls)
        dk_total[...] += _dot(slopes.astype(queries.dtype), queries, 1, 0)
        dv_total[...] += _dot(weights.astype(pulls.dtype), pulls, 1, 0)

    def finish() -> None:
        dk[...] = (dk_total[...] * scale).astype(dk.dtype)
        dv[...] = dv_total[...].astype(dv.dtype)

    return visit, finish


def _weights_and_slopes(
    activation: Activation, scale: float, inputs: Refs, allowed: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """A tile's weights, and the loss' gradient in its scores; float32 [keys, queries]."""
    q, k, v, edges, d_out, *statistics = inputs
    scores = _dot(k[...], q[...], 1, 1) * scale
    pulls = _dot(v[...], d_out[...], 1, 1)
    if activation == "softmax":
        lse, delta = statistics
        weights = jnp.exp(scores - lse[...])
        slopes = weights * (pulls - delta[...])
    else:
        shaped, pull = jax.vjp(POINTWISE[activation], scores)
        share = 1.0 / _keys(edges)
        weights, slopes = share * shaped, share * pull(pulls)[0]
    return _select(allowed, weights, 0.0), _select(allowed, slopes, 0.0)


def _dot(x: jax.Array, y: jax.Array, x_axis: int, y_axis: int) -> jax.Array:
    """Product over an axis of each, in float32; bfloat16 needs no more than the hardware's pass."""
    full = x.dtype == jnp.float32
    return jax.lax.dot_general(
        x,
        y,
        (((x_axis,), (y_axis,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST if full else jax.lax.Precision.DEFAULT,
        preferred_element_type=jnp.float32,
    )


def _select(allowed: jax.Array | None, x: jax.Array, otherwise: float) -> jax.Array:
    return x if allowed is None else jnp.where(allowed, x, otherwise)


def _clean(x: jax.Array) -> jax.Array:
    """x without what is not finite: 0 * NaN in a product would leak to who has weight 0."""
    wide = x.astype(jnp.float32)
    return jnp.where(jnp.abs(wide) < jnp.inf, wide, 0.0).astype(x.dtype)


def _taint(x: jax.Array) -> jax.Array:
    """NaN for keys with something not finite, else 0; [keys, 1]."""
    return jnp.sum(0.0 * x.astype(jnp.float32), axis=1, keepdims=True)


# Edges: what the mask says of each query, as rows of lanes.


def _edges(mask: Mask) -> jax.Array:
    """int32 [B, 3 or 5, T]: lo, hi, number of keys; then own and self, none (-1) in padding."""
    rows = [mask.lo, mask.hi, allowed_keys(mask)]
    if mask.own is not None:
        itself = jnp.arange(mask.lo.shape[-1], dtype=mask.own.dtype)
        rows += [jnp.where(mask.valid, x, -1) for x in (mask.own, itself)]
    return jnp.stack(rows, axis=1)


def _keys(edges: Any) -> jax.Array:
    return jnp.maximum(edges[2:3, :], 1).astype(jnp.float32)


def _allowed(edges: Any, key_tile: jax.Array) -> jax.Array:
    """bool [keys, queries] of one tile."""
    rows, tile = edges.shape
    key = key_tile * tile + jax.lax.broadcasted_iota(jnp.int32, (tile, tile), 0)
    allowed = (edges[0:1, :] <= key) & (key < edges[1:2, :])
    for row in range(3, rows):
        allowed |= key == edges[row : row + 1, :]
    return allowed


# Plans: which tiles a kernel visits.


class Plan(NamedTuple):
    """The other side's tiles that each tile of one side needs; each int32 [B * tiles].

    Two runs of tiles, the ranges' and the own edges', as a list that is never stored: the s-th of
    `visits` is tile `first + s`, or `gap` further where that is past `turn`, the first run's end.

    inner_lo, inner_hi: the keys that all queries of a query tile see.
    """

    first: jax.Array
    turn: jax.Array
    gap: jax.Array
    visits: jax.Array
    inner_lo: jax.Array
    inner_hi: jax.Array

    def tile(self, place: Any, step: Any) -> Any:
        """The tile of a step. Steps past the last stay there, and so move no data."""
        tile = self.first[place] + jnp.minimum(step, jnp.maximum(self.visits[place] - 1, 0))
        return tile + jnp.where(tile > self.turn[place], self.gap[place], 0)


def _plans(mask: Mask, tile: int) -> tuple[Plan, Plan]:
    """Plans of the query tiles and of the key tiles."""
    place = jnp.broadcast_to(jnp.arange(mask.lo.shape[-1], dtype=jnp.int32), mask.lo.shape)
    own = place if mask.own is None else mask.own
    ranges = _reach(mask.lo, mask.hi, mask.lo < mask.hi, tile)
    owns = _reach(own, place + 1, mask.valid, tile)
    seen = jnp.where(mask.valid, mask.hi, 0)
    inner = _tiles(mask.lo, tile).max(-1).ravel(), _tiles(seen, tile).min(-1).ravel()
    return (
        Plan(*_union(ranges, owns), *inner),
        Plan(*_union(ranges.swapaxes(1, 2), owns.swapaxes(1, 2)), *inner),
    )


def _tiles(x: jax.Array, tile: int) -> jax.Array:
    return x.reshape(x.shape[0], -1, tile)


def _reach(lo: jax.Array, hi: jax.Array, real: jax.Array, tile: int) -> jax.Array:
    """bool [B, tiles, tiles] (query, key): key tiles between a query tile's first and last key."""
    tiles = lo.shape[-1] // tile
    first = _tiles(jnp.where(real, lo // tile, tiles), tile).min(-1, keepdims=True)
    last = _tiles(jnp.where(real, (hi - 1) // tile, -1), tile).max(-1, keepdims=True)
    key_tile = jnp.arange(tiles)
    return (first <= key_tile) & (key_tile <= last)


def _union(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """first, turn, gap, visits of a `Plan` from two runs of tiles each, bool [B, tiles, tiles]."""
    tiles = a.shape[-1]
    runs = []
    for run, other in ((a, b), (b, a)):
        run = jnp.where(run.any(-1, keepdims=True), run, other)  # two runs, if any
        runs.append((run.argmax(-1), tiles - 1 - run[..., ::-1].argmax(-1)))
    (a_first, a_last), (b_first, b_last) = runs
    first, end = jnp.minimum(a_first, b_first), jnp.maximum(a_last, b_last)
    turn = jnp.where(a_first <= b_first, a_last, b_last)
    gap = jnp.maximum(jnp.maximum(a_first, b_first) - turn - 1, 0)
    visits = jnp.where((a | b).any(-1), end - first + 1 - gap, 0)
    first, turn, gap, visits = (x.astype(jnp.int32).ravel() for x in (first, turn, gap, visits))
    return first, turn, gap, visits


# Launches: grid steps are (row, key head, own tile, query head of the key head, visit).

Kind = Literal["query", "key", "edges", "statistic"]


class Sizes(NamedTuple):
    """What is static. tile: tokens; width: lanes of a head, K rounded up."""

    rows: int
    key_heads: int
    group: int
    tiles: int
    tile: int
    width: int


class Place(NamedTuple):
    """Where a grid step is; scalars, traced."""

    row: Any
    head: Any
    key_head: Any
    query_tile: Any
    key_tile: Any
    needed: Any
    full: Any  # all queries of the tile see all keys of the tile


@dataclass(frozen=True)
class Grid:
    """by_key: results are per key, summed over visited queries; else the other way round."""

    sizes: Sizes
    by_key: bool

    def place(
        self, plan: Plan, row: Any, key_head: Any, tile: Any, member: Any, step: Any
    ) -> Place:
        tiles, size = self.sizes.tiles, self.sizes.tile
        at = row * tiles + tile
        visited = plan.tile(at, step)
        query_tile, key_tile = (visited, tile) if self.by_key else (tile, visited)
        queries, start = row * tiles + query_tile, key_tile * size
        full = (plan.inner_lo[queries] <= start) & (start + size <= plan.inner_hi[queries])
        head = key_head * self.sizes.group + member
        return Place(row, head, key_head, query_tile, key_tile, step < plan.visits[at], full)

    def spec(self, kind: Kind, shape: tuple[int, ...]) -> pl.BlockSpec:
        """Block of an array of this kind and shape at a step."""
        tile, width = self.sizes.tile, self.sizes.width
        blocks: dict[Kind, tuple[tuple[int | None, ...], Callable[[Place], tuple[Any, ...]]]] = {
            "query": ((None, tile, width), lambda p: (p.row, p.query_tile, p.head)),
            "key": ((None, tile, width), lambda p: (p.row, p.key_tile, p.key_head)),
            "edges": ((None, shape[1], tile), lambda p: (p.row, 0, p.query_tile)),
            "statistic": ((None, None, 1, tile), lambda p: (p.row, p.head, 0, p.query_tile)),
        }
        block, index = blocks[kind]
        return pl.BlockSpec(block, lambda *args: index(self.place(Plan(*args[5:]), *args[:5])))

    def shape(self, kind: Kind) -> tuple[int, ...]:
        s = self.sizes
        heads, tokens = s.key_heads * s.group, s.tiles * s.tile
        return {
            "query": (s.rows, tokens, heads * s.width),
            "key": (s.rows, tokens, s.key_heads * s.width),
            "statistic": (s.rows, heads, 1, tokens),
        }[kind]


def _launch(
    name: str,
    kernel: Callable[[Refs, Refs, Refs], tuple[Visit, Finish]],
    grid: Grid,
    plan: Plan,
    inputs: list[tuple[Kind, jax.Array]],
    outputs: list[tuple[Kind, Any]],
    scratch: list[tuple[tuple[int, int], float]],
    interpret: bool,
) -> list[jax.Array]:
    """Outputs of a kernel over all that the plan needs.

    Args:
        name: in profiles.
        inputs: kinds and arrays; the fourth is the edges.
        outputs: kinds and types.
        scratch: shapes of float32 sums over the visits, and what they start from.
    """
    sizes, shapes = grid.sizes, [grid.shape(kind) for kind, _ in outputs]
    summed = (3, 4) if grid.by_key else (4,)  # axes of the grid
    # The busiest tile's visits, known when it runs: short ranges need few, however long the row.
    steps = jnp.maximum(jnp.max(plan.visits), 1)

    def run(*refs: Any) -> None:
        bounds, refs = Plan(*refs[: len(plan)]), refs[len(plan) :]
        sums = refs[len(inputs) + len(outputs) :]
        visit, finish = kernel(refs[: len(inputs)], refs[len(inputs) : -len(sums)], sums)
        here = [pl.program_id(axis) for axis in range(5)]
        place = grid.place(bounds, *here)

        @pl.when(_all(here[axis] == 0 for axis in summed))
        def start() -> None:
            for x, (_, value) in zip(sums, scratch):
                x[...] = jnp.full(x.shape, value, x.dtype)

        @pl.when(place.needed & place.full)
        def inside() -> None:
            visit(None)

        @pl.when(place.needed & ~place.full)
        def at_an_edge() -> None:
            visit(_allowed(refs[3], place.key_tile))

        @pl.when(_all(here[axis] == pl.num_programs(axis) - 1 for axis in summed))
        def end() -> None:
            finish()

    return pl.pallas_call(
        run,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(plan),
            grid=(sizes.rows, sizes.key_heads, sizes.tiles, sizes.group, steps),
            in_specs=[grid.spec(kind, x.shape) for kind, x in inputs],
            out_specs=[grid.spec(kind, shape) for (kind, _), shape in zip(outputs, shapes)],
            scratch_shapes=[pltpu.VMEM(shape, jnp.float32) for shape, _ in scratch],
        ),
        out_shape=[jax.ShapeDtypeStruct(s, dtype) for s, (_, dtype) in zip(shapes, outputs)],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=["arbitrary" if a in summed else "parallel" for a in range(5)]
        ),
        interpret=interpret,
        name=name,
    )(*plan, *(x for _, x in inputs))


def _all(conditions: Iterable[jax.Array]) -> jax.Array:
    return reduce(jnp.logical_and, conditions)


def _inputs(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: Mask, sizes: Sizes
) -> list[tuple[Kind, jax.Array]]:
    flat = [_flatten(x, sizes) for x in (q, k, v)]
    return [("query", flat[0]), ("key", flat[1]), ("key", flat[2]), ("edges", _edges(mask))]


def _sizes(q: jax.Array, k: jax.Array, tile: int) -> Sizes:
    (b, t, heads, width), key_heads = q.shape, k.shape[2]
    return Sizes(b, key_heads, heads // key_heads, pl.cdiv(t, tile), tile, _round_up(width, LANES))


def _flatten(x: jax.Array, sizes: Sizes) -> jax.Array:
    """[B, T, H, K] as [B, tokens of all tiles, H x lanes]: a head is then a block of columns."""
    b, t, heads, k = x.shape
    tokens = sizes.tiles * sizes.tile
    padded = jnp.pad(x, ((0, 0), (0, tokens - t), (0, 0), (0, sizes.width - k)))
    return padded.reshape(b, tokens, heads * sizes.width)


def _unflatten(flat: jax.Array, like: jax.Array) -> jax.Array:
    b, t, heads, k = like.shape
    return flat.reshape(b, flat.shape[1], heads, -1)[:, :t, :, :k]


def _delta(out: jax.Array, d_out: jax.Array, tile: int) -> jax.Array:
    """sum_k out x d_out, float32 [B, H, 1, T]: what softmax's gradient takes off every score's."""
    delta = jnp.sum(out.astype(jnp.float32) * d_out.astype(jnp.float32), axis=-1)
    return _pad_tokens(jnp.swapaxes(delta, 1, 2), tile)[:, :, None]


def _pad_mask(mask: Mask, tile: int) -> Mask:
    return jax.tree.map(lambda x: _pad_tokens(x, tile), mask)


def _pad_tokens(x: jax.Array, tile: int) -> jax.Array:
    """x [..., T] with zeros up to a whole number of tiles."""
    t = x.shape[-1]
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, _round_up(t, tile) - t)])


def _round_up(x: int, multiple: int) -> int:
    return pl.cdiv(x, multiple) * multiple
