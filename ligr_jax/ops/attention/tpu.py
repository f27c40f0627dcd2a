"""Attention over ranges of keys as Pallas TPU kernels that do not read tiles without allowed pairs.

Why not JAX's splash attention: with a mask that is data it fails under `jit` (a branch on a traced
flag), and outside of `jit` it stores the T x T mask of every head.

Scores are transposed, [keys, queries]: every quantity per query (ranges, maxima, sums) is then one
row of lanes. Own edges are cells of the mask in tiles on the diagonal. If sessions are shorter than
a tile, the ranges need these tiles anyway.

Masked keys never affect a query, not even if they are NaN: weights are selected, not multiplied by
zero. In tiles that are partly masked, non-finite values are replaced by 0 in operands that are
summed over tokens, and queries that do see a NaN receive it through their scores.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ligr_jax.ops.attention.scores import LOWEST, Activation
from ligr_jax.ops.attention.tilings import stored_tiling, tiling_name
from ligr_jax.ops.masks import Mask, allowed_keys

LANES = 128
LARGEST_TILE = 512  # tokens
POINTWISE = {"silu": jax.nn.silu, "sigmoid": jax.nn.sigmoid}


def attend_tpu(
    q_BTHK: jax.Array,
    k_BTGK: jax.Array,
    v_BTGK: jax.Array,
    mask: Mask,
    activation: Activation,
    interpret: bool = False,
    largest_tile: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Compute `attend_with_normalizer` without a bias, in memory linear in T.

    It has first derivatives in q, k and v.

    For TPU v4 and newer. A kernel runs on one device: shard rows or heads by a surrounding
    `shard_map` with `check_vma=False`. Under `vmap` it runs once per element, in a loop.

    Args:
        q_BTHK: [B, T, H, K], float32 or bfloat16.
        k_BTGK, v_BTGK: [B, T, G, K], with H a multiple of G.
        mask, activation: as in `attend`.
        interpret: run the kernels as plain JAX on any device; slow, for tests.
        largest_tile: tokens; replaces the measured one of this device (`tilings`) and LARGEST_TILE.

    Returns:
        The output [B, T, H, K], and the normalizer [B, T, H].
    """
    if largest_tile is None:
        name = tiling_name("tpu", mask.own is not None, q_BTHK.dtype, q_BTHK.shape[-1])
        largest_tile = stored_tiling(name) or LARGEST_TILE
    # The fewest tiles of at most that size, equal, and rounded up to whole lanes.
    t = q_BTHK.shape[1]
    tile = _round_up(pl.cdiv(t, pl.cdiv(t, largest_tile)), LANES)
    return _attend(q_BTHK, k_BTGK, v_BTGK, mask, activation, interpret, tile)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: Mask,
    activation: Activation,
    interpret: bool,
    tile: int,
) -> tuple[jax.Array, jax.Array]:
    """Compute `attend_tpu` in tiles of `tile` tokens; the hardware needs multiples of 128."""
    return _attend_forward(q, k, v, mask, activation, interpret, tile)[0]


def _attend_forward(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: Mask,
    activation: Activation,
    interpret: bool,
    tile: int,
) -> tuple[tuple[jax.Array, jax.Array], tuple[Any, ...]]:
    """Return the results and the residuals: the inputs, and for softmax also `out` and `lse`."""
    sizes = _sizes(q, k, tile)
    padded = _pad_mask(mask, tile)
    softmax = activation == "softmax"
    flat, *lse = _launch(
        "attend_forward",
        partial(_forward_kernel, activation, q.shape[-1] ** -0.5),
        TileGrid(sizes, by_key=False),
        _plans(padded, tile)[0],
        _inputs(q, k, v, padded, sizes),
        [("query", q.dtype)] + [("statistic", jnp.float32)] * softmax,
        [((sizes.width, tile), 0.0), ((1, tile), LOWEST), ((1, tile), 0.0)],
        interpret,
    )
    out = _unflatten(flat, q)
    if not softmax:
        return (out, jnp.full(q.shape[:3], LOWEST)), (q, k, v, mask)
    lse_BTH = jnp.swapaxes(lse[0][:, :, 0, : q.shape[1]], 1, 2)
    return (out, lse_BTH), (q, k, v, mask, out, *lse)


def _attend_backward(
    activation: Activation,
    interpret: bool,
    tile: int,
    saved: tuple[Any, ...],
    gradients: tuple[jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    q, k, v, mask, *softmax = saved
    d_out, d_lse_BTH = gradients
    sizes = _sizes(q, k, tile)
    padded = _pad_mask(mask, tile)
    inputs = [*_inputs(q, k, v, padded, sizes), ("query", _flatten(d_out, sizes))]
    if softmax:
        out, lse = softmax
        inputs += [("statistic", lse), ("statistic", _delta(out, d_out, d_lse_BTH, tile))]
    of_query, of_key = _plans(padded, tile)
    scale = q.shape[-1] ** -0.5
    (dq,) = _launch(
        "attend_query_gradient",
        partial(_query_gradient_kernel, activation, scale),
        TileGrid(sizes, by_key=False),
        of_query,
        inputs,
        [("query", q.dtype)],
        [((sizes.width, tile), 0.0)],
        interpret,
    )
    dk, dv = _launch(
        "attend_key_gradient",
        partial(_key_gradient_kernel, activation, scale),
        TileGrid(sizes, by_key=True),
        of_key,
        inputs,
        [("key", k.dtype), ("key", v.dtype)],
        [((tile, sizes.width), 0.0)] * 2,
        interpret,
    )
    return _unflatten(dq, q), _unflatten(dk, k), _unflatten(dv, v), None


_attend.defvjp(_attend_forward, _attend_backward)


# ---- Kernels. Each returns two functions: `visit` processes one tile of pairs, `finish` writes the
# results after the last tile.

Refs = Sequence[Any]
Visit = Callable[[jax.Array | None], None]  # takes the allowed pairs, bool [keys, queries], or None
Finish = Callable[[], None]


def _forward_kernel(
    activation: Activation, scale: float, inputs: Refs, outputs: Refs, scratch: Refs
) -> tuple[Visit, Finish]:
    """Accumulate the output of a query tile by an online softmax, or by a plain sum."""
    q, k, v, edges = inputs
    out, *lse = outputs
    # Weighted sum of values [width, queries]; maximum and sum of weights, both [1, queries].
    total, top, mass = scratch

    def visit(allowed: jax.Array | None) -> None:
        scores = _dot(k[...], q[...], 1, 1) * scale
        values = v[...]
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
            norm = jnp.where(mass[...] == 0, 1.0, mass[...])  # padding has no weights
            lse[0][...] = top[...] + jnp.log(norm)
        else:
            norm = _keys(edges)
        out[...] = (total[...] / norm).T.astype(out.dtype)

    return visit, finish


def _query_gradient_kernel(
    activation: Activation, scale: float, inputs: Refs, outputs: Refs, scratch: Refs
) -> tuple[Visit, Finish]:
    """Accumulate dQ of a query tile over its key tiles."""
    k = inputs[1]
    (dq,) = outputs
    (total,) = scratch

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
    """Accumulate dK and dV of a key tile over its query tiles."""
    q, _, _, _, d_out, *_ = inputs
    dk, dv = outputs
    dk_total, dv_total = scratch

    def visit(allowed: jax.Array | None) -> None:
        weights, slopes = _weights_and_slopes(activation, scale, inputs, allowed)
        queries, d_outputs = q[...], d_out[...]
        if allowed is not None:
            queries, d_outputs = _clean(queries), _clean(d_outputs)
        dk_total[...] += _dot(slopes.astype(queries.dtype), queries, 1, 0)
        dv_total[...] += _dot(weights.astype(d_outputs.dtype), d_outputs, 1, 0)

    def finish() -> None:
        dk[...] = (dk_total[...] * scale).astype(dk.dtype)
        dv[...] = dv_total[...].astype(dv.dtype)

    return visit, finish


def _weights_and_slopes(
    activation: Activation, scale: float, inputs: Refs, allowed: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Return a tile's weights and the loss's gradient by its scores, float32 [keys, queries]."""
    q, k, v, edges, d_out, *statistics = inputs
    scores = _dot(k[...], q[...], 1, 1) * scale
    d_weights = _dot(v[...], d_out[...], 1, 1)
    if activation == "softmax":
        lse, delta = statistics
        weights = jnp.exp(scores - lse[...])
        slopes = weights * (d_weights - delta[...])
    else:
        activated, vjp = jax.vjp(POINTWISE[activation], scores)
        share = 1.0 / _keys(edges)
        weights = share * activated
        slopes = share * vjp(d_weights)[0]
    return _select(allowed, weights, 0.0), _select(allowed, slopes, 0.0)


def _dot(x: jax.Array, y: jax.Array, x_axis: int, y_axis: int) -> jax.Array:
    """Multiply over one axis of each array, in float32; one hardware pass suffices for bfloat16."""
    full = x.dtype == jnp.float32
    return jax.lax.dot_general(
        x,
        y,
        (((x_axis,), (y_axis,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST if full else jax.lax.Precision.DEFAULT,
        preferred_element_type=jnp.float32,
    )


def _select(allowed: jax.Array | None, x: jax.Array, otherwise: float) -> jax.Array:
    """Replace x by `otherwise` in masked pairs."""
    return x if allowed is None else jnp.where(allowed, x, otherwise)


def _clean(x: jax.Array) -> jax.Array:
    """Replace non-finite values by 0: in a product, 0 * NaN would reach queries with weight 0."""
    wide = x.astype(jnp.float32)
    return jnp.where(jnp.abs(wide) < jnp.inf, wide, 0.0).astype(x.dtype)


def _taint(x: jax.Array) -> jax.Array:
    """Return NaN for keys that have a non-finite value, else 0; [keys, 1]."""
    return jnp.sum(0.0 * x.astype(jnp.float32), axis=1, keepdims=True)


# ---- Edges: the mask of each query, as rows of lanes.


def _edges(mask: Mask) -> jax.Array:
    """Return int32 [B, 3 or 5, T]: lo, hi, number of keys; then own and self, -1 in padding."""
    rows = [mask.lo, mask.hi, allowed_keys(mask)]
    if mask.own is not None:
        itself = jnp.arange(mask.lo.shape[-1], dtype=mask.own.dtype)
        rows += [jnp.where(mask.valid, x, -1) for x in (mask.own, itself)]
    return jnp.stack(rows, axis=1)


def _keys(edges: Any) -> jax.Array:
    """Return the number of keys of each query, at least 1; float32 [1, queries]."""
    return jnp.maximum(edges[2:3, :], 1).astype(jnp.float32)


def _allowed(edges: Any, key_tile: jax.Array) -> jax.Array:
    """Return the allowed pairs of one tile, bool [keys, queries]."""
    rows, tile = edges.shape
    key = key_tile * tile + jax.lax.broadcasted_iota(jnp.int32, (tile, tile), 0)
    allowed = (edges[0:1, :] <= key) & (key < edges[1:2, :])
    for row in range(3, rows):
        allowed |= key == edges[row : row + 1, :]
    result: jax.Array = allowed
    return result


# ---- Plans: the tiles that a kernel visits.


class TilePlan(NamedTuple):
    """For each tile of queries (or keys), the tiles of keys (or queries) to visit.

    The tiles to visit are two runs, one from the ranges and one from the own edges. Visit s is tile
    `first + s`, plus `gap` if that is beyond `turn`, the last tile of the first run. All arrays are
    int32 [B * tiles].

    visits: number of tiles to visit.
    inner_lo, inner_hi: the range of keys that all queries of a query tile see.
    """

    first: jax.Array
    turn: jax.Array
    gap: jax.Array
    visits: jax.Array
    inner_lo: jax.Array
    inner_hi: jax.Array

    def tile(self, index: Any, step: Any) -> Any:
        """Return the tile to visit in a step. Steps beyond the last repeat it and move no data."""
        tile = self.first[index] + jnp.minimum(step, jnp.maximum(self.visits[index] - 1, 0))
        return tile + jnp.where(tile > self.turn[index], self.gap[index], 0)


def _plans(mask: Mask, tile: int) -> tuple[TilePlan, TilePlan]:
    """Return the plan of the query tiles and the plan of the key tiles."""
    token = jnp.broadcast_to(jnp.arange(mask.lo.shape[-1], dtype=jnp.int32), mask.lo.shape)
    own = token if mask.own is None else mask.own
    by_ranges = _reach(mask.lo, mask.hi, mask.lo < mask.hi, tile)
    by_own = _reach(own, token + 1, mask.valid, tile)

    # Keys seen by all queries of a tile; a tile with padding has none.
    hi = jnp.where(mask.valid, mask.hi, 0)
    inner = _tiles(mask.lo, tile).max(-1).ravel(), _tiles(hi, tile).min(-1).ravel()
    return (
        TilePlan(*_union(by_ranges, by_own), *inner),
        TilePlan(*_union(by_ranges.swapaxes(1, 2), by_own.swapaxes(1, 2)), *inner),
    )


def _tiles(x: jax.Array, tile: int) -> jax.Array:
    """Split [B, T] into tiles, [B, tiles, tile]."""
    return x.reshape(x.shape[0], -1, tile)


def _reach(lo: jax.Array, hi: jax.Array, real: jax.Array, tile: int) -> jax.Array:
    """Mark the key tiles from a query tile's first to its last key, bool [B, tiles, tiles]."""
    tiles = lo.shape[-1] // tile
    first = _tiles(jnp.where(real, lo // tile, tiles), tile).min(-1, keepdims=True)
    last = _tiles(jnp.where(real, (hi - 1) // tile, -1), tile).max(-1, keepdims=True)
    key_tile = jnp.arange(tiles)
    return (first <= key_tile) & (key_tile <= last)


def _union(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Return first, turn, gap and visits of a `TilePlan`, from two runs bool [B, tiles, tiles]."""
    tiles = a.shape[-1]
    runs = []
    for run, other in ((a, b), (b, a)):
        run = jnp.where(run.any(-1, keepdims=True), run, other)  # an empty run copies the other
        runs.append((run.argmax(-1), tiles - 1 - run[..., ::-1].argmax(-1)))
    (a_first, a_last), (b_first, b_last) = runs
    first, end = jnp.minimum(a_first, b_first), jnp.maximum(a_last, b_last)
    turn = jnp.where(a_first <= b_first, a_last, b_last)
    gap = jnp.maximum(jnp.maximum(a_first, b_first) - turn - 1, 0)
    visits = jnp.where((a | b).any(-1), end - first + 1 - gap, 0)
    first, turn, gap, visits = (x.astype(jnp.int32).ravel() for x in (first, turn, gap, visits))
    return first, turn, gap, visits


# ---- Launches: grid steps are (row, key head, tile, query head of the key head, visit).

BlockKind = Literal["query", "key", "edges", "statistic"]


class Sizes(NamedTuple):
    """Static sizes: `group` = H / G, `tile` in tokens, `width` = K rounded up to whole lanes."""

    rows: int
    key_heads: int
    group: int
    tiles: int
    tile: int
    width: int


class Step(NamedTuple):
    """The indices of a grid step; traced scalars.

    needed: the step belongs to the plan. full: all queries of the tile see all keys of the tile.
    """

    row: Any
    head: Any
    key_head: Any
    query_tile: Any
    key_tile: Any
    needed: Any
    full: Any


@dataclass(frozen=True)
class TileGrid:
    """The grid of a kernel.

    by_key: results are per key and summed over queries; otherwise per query and summed over keys.
    """

    sizes: Sizes
    by_key: bool

    def step(
        self, plan: TilePlan, row: Any, key_head: Any, tile: Any, member: Any, visit: Any
    ) -> Step:
        """Return the indices of a grid step."""
        tiles, size = self.sizes.tiles, self.sizes.tile
        index = row * tiles + tile
        visited = plan.tile(index, visit)
        query_tile, key_tile = (visited, tile) if self.by_key else (tile, visited)
        queries, start = row * tiles + query_tile, key_tile * size
        full = (plan.inner_lo[queries] <= start) & (start + size <= plan.inner_hi[queries])
        head = key_head * self.sizes.group + member
        return Step(
            row=row,
            head=head,
            key_head=key_head,
            query_tile=query_tile,
            key_tile=key_tile,
            needed=visit < plan.visits[index],
            full=full,
        )

    def spec(self, kind: BlockKind, shape: tuple[int, ...]) -> pl.BlockSpec:
        """Return the block of an array that a grid step reads or writes."""
        tile, width = self.sizes.tile, self.sizes.width
        blocks: dict[
            BlockKind, tuple[tuple[int | None, ...], Callable[[Step], tuple[Any, ...]]]
        ] = {
            "query": ((None, tile, width), lambda s: (s.row, s.query_tile, s.head)),
            "key": ((None, tile, width), lambda s: (s.row, s.key_tile, s.key_head)),
            "edges": ((None, shape[1], tile), lambda s: (s.row, 0, s.query_tile)),
            "statistic": ((None, None, 1, tile), lambda s: (s.row, s.head, 0, s.query_tile)),
        }
        block, index = blocks[kind]
        return pl.BlockSpec(block, lambda *args: index(self.step(TilePlan(*args[5:]), *args[:5])))

    def shape(self, kind: BlockKind) -> tuple[int, ...]:
        """Return the shape of a whole output."""
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
    grid: TileGrid,
    plan: TilePlan,
    inputs: list[tuple[BlockKind, jax.Array]],
    outputs: list[tuple[BlockKind, Any]],
    scratch: list[tuple[tuple[int, int], float]],
    interpret: bool,
) -> list[jax.Array]:
    """Run a kernel over all tiles of a plan and return its outputs.

    Args:
        name: shown in profiles.
        kernel: called with references to inputs, outputs and scratch.
        grid: sizes, and the side that results belong to.
        plan: the tiles to visit.
        inputs: kinds and arrays; the fourth is the edges.
        outputs: kinds and dtypes.
        scratch: shapes of float32 sums over the visits, and their initial values.
        interpret: run as plain JAX.
    """
    sizes = grid.sizes
    shapes = [grid.shape(kind) for kind, _ in outputs]
    summed = (3, 4) if grid.by_key else (4,)  # the axes of the grid that results are summed over
    # The number of visits of the busiest tile, a value known at run time: short ranges need few
    # visits, however long the row.
    steps = jnp.maximum(jnp.max(plan.visits), 1)

    def run(*refs: Any) -> None:
        bounds, refs = TilePlan(*refs[: len(plan)]), refs[len(plan) :]
        sums = refs[len(inputs) + len(outputs) :]
        visit, finish = kernel(refs[: len(inputs)], refs[len(inputs) : -len(sums)], sums)
        indices = [pl.program_id(axis) for axis in range(5)]
        step = grid.step(bounds, *indices)

        @pl.when(_all(indices[axis] == 0 for axis in summed))
        def start() -> None:
            for x, (_, value) in zip(sums, scratch):
                x[...] = jnp.full(x.shape, value, x.dtype)

        @pl.when(step.needed & step.full)
        def visit_unmasked() -> None:
            visit(None)

        @pl.when(step.needed & ~step.full)
        def visit_masked() -> None:
            visit(_allowed(refs[3], step.key_tile))

        @pl.when(_all(indices[axis] == pl.num_programs(axis) - 1 for axis in summed))
        def end() -> None:
            finish()

    result: list[jax.Array] = pl.pallas_call(
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
    return result


def _all(conditions: Iterable[jax.Array]) -> jax.Array:
    return reduce(jnp.logical_and, conditions)


def _inputs(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: Mask, sizes: Sizes
) -> list[tuple[BlockKind, jax.Array]]:
    flat = [_flatten(x, sizes) for x in (q, k, v)]
    return [("query", flat[0]), ("key", flat[1]), ("key", flat[2]), ("edges", _edges(mask))]


def _sizes(q: jax.Array, k: jax.Array, tile: int) -> Sizes:
    b, t, heads, width = q.shape
    key_heads = k.shape[2]
    return Sizes(
        rows=b,
        key_heads=key_heads,
        group=heads // key_heads,
        tiles=pl.cdiv(t, tile),
        tile=tile,
        width=_round_up(width, LANES),
    )


def _flatten(x: jax.Array, sizes: Sizes) -> jax.Array:
    """Reshape [B, T, H, K] to [B, tiles x tile, H x width]: a head is then a block of columns."""
    b, t, heads, k = x.shape
    tokens = sizes.tiles * sizes.tile
    padded = jnp.pad(x, ((0, 0), (0, tokens - t), (0, 0), (0, sizes.width - k)))
    return padded.reshape(b, tokens, heads * sizes.width)


def _unflatten(flat: jax.Array, array: jax.Array) -> jax.Array:
    """Invert `_flatten`, for an array of the given shape [B, T, H, K]."""
    b, t, heads, k = array.shape
    return flat.reshape(b, flat.shape[1], heads, -1)[:, :t, :, :k]


def _delta(out: jax.Array, d_out: jax.Array, d_lse_BTH: jax.Array, tile: int) -> jax.Array:
    """Return sum_k out x d_out - d_lse, float32 [B, H, 1, T]: what each query's gradient lacks."""
    delta = jnp.sum(out.astype(jnp.float32) * d_out.astype(jnp.float32), axis=-1) - d_lse_BTH
    return _pad_tokens(jnp.swapaxes(delta, 1, 2), tile)[:, :, None]


def _pad_mask(mask: Mask, tile: int) -> Mask:
    result: Mask = jax.tree.map(lambda x: _pad_tokens(x, tile), mask)
    return result


def _pad_tokens(x: jax.Array, tile: int) -> jax.Array:
    """Pad x [..., T] with zeros to a whole number of tiles."""
    t = x.shape[-1]
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, _round_up(t, tile) - t)])


def _round_up(x: int, multiple: int) -> int:
    return pl.cdiv(x, multiple) * multiple
