"""Attention by tiles in plain XLA: memory linear in T, and work only where ranges have keys.

A query tile visits windows of keys from the lowest `lo` to the highest `hi` of its rows, then,
where no window has covered them, its tokens' own keys. Windows start exactly at `lo`, unaligned, so
a packed member costs what it costs alone; the last one is moved back inside the row, and what an
earlier window has seen is masked. Softmax is online (Milakov & Gimelshein 2018), and the backward
pass makes the scores again from the normalizer it saved (FlashAttention, Dao et al. 2022).

One head group of one row at a time: on a CPU its tiles stay in cache, and slices of [B, T, H, K]
need no transpose. Cores are used by splitting the batch over devices.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ligr_jax.ops.attention.scores import Activation, RelativeBias, bias_scores, bucket_distance
from ligr_jax.ops.masks import Mask

_LOWEST = -1e30  # finite: exp(-inf - _LOWEST) is 0 where exp(-inf + inf) is not


class Tiles(NamedTuple):
    """Rows of a query tile, keys of a window."""

    rows: int
    keys: int


# Measured: experiments/attention.py.
HISTORY_TILES = Tiles(128, 128)
SESSION_TILES = Tiles(64, 128)


class _Problem(NamedTuple):
    """What tiles are cut from; table and place: of the relative bias, or None."""

    q: jax.Array
    k: jax.Array
    v: jax.Array
    mask: Mask
    table: jax.Array | None
    place: jax.Array | None


def attend_blocked(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: Mask,
    activation: Activation,
    bias: RelativeBias | None,
    tiles: Tiles | None = None,
) -> jax.Array:
    """`attend`; differentiable in reverse. `tiles`: default by the kind of mask."""
    if tiles is None:
        tiles = SESSION_TILES if mask.own is None else HISTORY_TILES
    t, shared = q.shape[1], q.shape[2] // k.shape[2]
    tiles = Tiles(min(max(tiles.rows // shared, 1), t), min(tiles.keys, t))
    table, place = (None, None) if bias is None else (bias.table, bias.place)
    return _attend(activation, tiles, _Problem(q, k, v, mask, table, place))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attend(activation: Activation, tiles: Tiles, problem: _Problem) -> jax.Array:
    return _forward(activation, tiles, problem)[0]


def _forward(activation: Activation, tiles: Tiles, problem: _Problem) -> tuple[jax.Array, Any]:
    """Output, and for the backward pass the log of what each token's weights are divided by."""

    def visit_tile(number: jax.Array, done: tuple[jax.Array, jax.Array]) -> Any:
        tile = _QueryTile(number, problem, tiles, first_time_only=False)
        q = tile.rows_of(problem.q)

        def visit_window(at: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            highest, total, mixed = state
            k, v = tile.keys_of(problem.k, at), tile.keys_of(problem.v, at)
            scores, allowed = tile.scores(q, k, at), tile.allowed(at)
            if activation == "softmax":
                scores = jnp.where(allowed, scores, -jnp.inf)
                higher = jnp.maximum(highest, scores.max(1, keepdims=True))
                weights, shrink = jnp.exp(scores - higher), jnp.exp(highest - higher)
                highest, total, mixed = higher, total * shrink, mixed * shrink
                total += weights.sum(1, keepdims=True)
            else:
                weights = jnp.where(allowed, _pointwise(activation, scores)[0], 0.0)
                total += allowed.sum(1, keepdims=True)
            return highest, total, mixed + _dot(weights.astype(v.dtype), v)

        zero = jnp.zeros((len(q), 1), jnp.float32)
        start = (
            zero + (_LOWEST if activation == "softmax" else 0),
            zero,
            jnp.zeros_like(q, zero.dtype),
        )
        highest, total, mixed = tile.over_windows(visit_window, start)
        mean = mixed / jnp.where(total > 0, total, 1)
        return tile.put(done[0], mean), tile.put(done[1], highest + jnp.log(total))

    out = jnp.zeros_like(problem.q, jnp.float32)  # in bfloat16 XLA would copy it every time
    lse = jnp.zeros((*out.shape[:3], 1), jnp.float32)
    out, lse = lax.fori_loop(0, _tile_count(problem, tiles), visit_tile, (out, lse))
    return out.astype(problem.q.dtype), (problem, out, lse)


def _backward(activation: Activation, tiles: Tiles, saved: Any, d_out: jax.Array) -> Any:
    problem, out, lse = saved
    scale = problem.q.shape[-1] ** -0.5

    def visit_tile(number: jax.Array, gradients: Any) -> Any:
        tile = _QueryTile(number, problem, tiles, first_time_only=True)
        q, d_mixed, divisor = (tile.rows_of(x) for x in (problem.q, d_out, lse))
        # What softmax takes back from every score of a row.
        back = jnp.sum(tile.rows_of(out) * d_mixed, 1, keepdims=True)

        def visit_window(at: jax.Array, state: Any) -> Any:
            d_q, d_k, d_v, d_table = state
            k, v = tile.keys_of(problem.k, at), tile.keys_of(problem.v, at)
            scores, allowed = tile.scores(q, k, at), tile.allowed(at)
            d_weights = _dot(d_mixed, v, 1, 1)
            if activation == "softmax":
                weights = jnp.exp(scores - divisor)
                d_scores = weights * (d_weights - back)
            else:
                weights, slopes = (x * jnp.exp(-divisor) for x in _pointwise(activation, scores))
                d_scores = slopes * d_weights
            weights, d_scores = (jnp.where(allowed, x, 0.0) for x in (weights, d_scores))
            if d_table is not None:
                d_table = tile.add_bias_gradient(d_table, d_scores, at)
            weights, d_scores = weights.astype(v.dtype), d_scores.astype(v.dtype)
            d_k = tile.add_keys(d_k, _dot(q, d_scores, 0, 0), at)
            d_v = tile.add_keys(d_v, _dot(d_mixed, weights, 0, 0), at)
            return d_q + _dot(d_scores, k), d_k, d_v, d_table

        d_q, *rest = gradients
        start = (jnp.zeros_like(q, jnp.float32), *rest)
        tile_d_q, *rest = tile.over_windows(visit_window, start)
        return tile.add(d_q, tile_d_q), *rest

    # Of keys and values as [B, G, K, T]: a third faster to add to than [B, T, G, K] on a CPU.
    by_key = jnp.zeros([problem.k.shape[i] for i in (0, 2, 3, 1)], jnp.float32)
    start = (jnp.zeros_like(problem.q, jnp.float32), by_key, by_key, _zeros_like(problem.table))
    d_q, d_k, d_v, d_table = lax.fori_loop(0, _tile_count(problem, tiles), visit_tile, start)
    d_k, d_v = (jnp.moveaxis(x, 3, 1) for x in (d_k, d_v))
    d_q, d_k, d_v = (x.astype(d_out.dtype) for x in (scale * d_q, scale * d_k, d_v))
    no_mask, no_place = jax.tree.map(_no_gradient, (problem.mask, problem.place))
    return (_Problem(d_q, d_k, d_v, no_mask, d_table, no_place),)


_attend.defvjp(_forward, _backward)


class _QueryTile:
    """A tile of query rows, of the heads that share keys, and the windows of keys it must see.

    Heads of a group follow each other inside a row: [rows * H / G, K]. The last tile of a row is
    moved back inside it; with `first_time_only`, rows an earlier tile has had see nothing.
    """

    def __init__(
        self, number: jax.Array, problem: _Problem, tiles: Tiles, first_time_only: bool
    ) -> None:
        _, t, heads, _ = problem.q.shape
        groups, per_row = problem.k.shape[2], -(-t // tiles.rows)
        self.problem, self.tiles, self.shared = problem, tiles, heads // groups
        self.b, self.g = number // (per_row * groups), number // per_row % groups
        begin = number % per_row * tiles.rows
        self.start = jnp.minimum(begin, t - tiles.rows)
        self.t = self.start + jnp.arange(tiles.rows, dtype=jnp.int32)
        self._set_ranges(problem.mask, begin if first_time_only else 0)

    def _set_ranges(self, mask: Mask, begin: jax.Array | int) -> None:
        """Ranges [lo, hi) and [own, t] of every row, and the first key of every window."""
        end, width = mask.lo.shape[1], self.tiles.keys
        counts = self._row(mask.valid) & (self.t >= begin)
        lo, hi = self._row(mask.lo), self._row(mask.hi)
        some = counts & (lo < hi)
        self.lo, self.hi = jnp.where(some, lo, end), jnp.where(some, hi, 0)
        self.first = self.lo.min()
        self.windows = jnp.maximum(-(-(self.hi.max() - self.first) // width), 0)
        self.all_windows = self.windows
        if mask.own is not None:
            self.own = jnp.where(counts, self._row(mask.own), end)
            covered = jnp.where(self.windows > 0, self.first + self.windows * width, 0)
            self.first_own = jnp.maximum(self.own.min(), covered)
            last = jnp.where(counts, self.t + 1, 0).max()
            self.all_windows += jnp.maximum(-(-(last - self.first_own) // width), 0)

    def over_windows(self, visit: Callable[[jax.Array, Any], Any], state: Any) -> Any:
        """visit(first key, state) -> state over all windows; their number is data."""

        def place(i: jax.Array) -> jax.Array:
            at = self.first + i * self.tiles.keys
            if self.problem.mask.own is None:
                return at
            own = self.first_own + (i - self.windows) * self.tiles.keys
            return jnp.where(i < self.windows, at, own)

        return lax.fori_loop(0, self.all_windows, lambda i, s: visit(place(i), s), state)

    def allowed(self, at: jax.Array) -> jax.Array:
        """bool [rows * H / G, keys]: pairs of the mask in the window whose first key is `at`."""
        key = self._key_start(at) + jnp.arange(self.tiles.keys, dtype=jnp.int32)
        lo, hi, t = self.lo[:, None], self.hi[:, None], self.t[:, None]
        pairs = (key >= jnp.maximum(lo, at)) & (key < hi)
        if self.problem.mask.own is not None:
            pairs |= (key >= jnp.maximum(self.own[:, None], at)) & (key <= t)
        return self._per_head(pairs)

    def scores(self, q: jax.Array, k: jax.Array, at: jax.Array) -> jax.Array:
        scores = _dot(q, k, 1, 1) * (q.shape[-1] ** -0.5)
        if self.problem.table is not None:
            table = self._of_group(self.problem.table)
            bias = jnp.moveaxis(bias_scores(table, *self._places(at)), 0, 1)
            scores += bias.reshape(scores.shape)
        return scores

    def add_bias_gradient(
        self, d_table: jax.Array, d_scores: jax.Array, at: jax.Array
    ) -> jax.Array:
        place, key_place = self._places(at)
        bucket = bucket_distance(jnp.abs(place[:, None] - key_place), d_table.shape[1])
        per_head = jnp.moveaxis(d_scores.reshape(len(place), self.shared, -1), 1, 0)
        new = self._of_group(d_table).at[:, bucket].add(per_head)
        return lax.dynamic_update_slice_in_dim(d_table, new, self.g * self.shared, 0)

    def rows_of(self, x: jax.Array) -> jax.Array:
        """The tile's [rows * H / G, K] of [B, T, H, K]."""
        size = (1, self.tiles.rows, self.shared, x.shape[-1])
        return _for_products(lax.dynamic_slice(x, self._corner(), size).reshape(-1, x.shape[-1]))

    def put(self, x: jax.Array, tile: jax.Array) -> jax.Array:
        """[B, T, H, K] with `tile` in the tile's place."""
        block = tile.reshape(1, self.tiles.rows, self.shared, -1).astype(x.dtype)
        return lax.dynamic_update_slice(x, block, self._corner())

    def add(self, x: jax.Array, tile: jax.Array) -> jax.Array:
        return self.put(x, self.rows_of(x) + tile)

    def keys_of(self, x: jax.Array, at: jax.Array) -> jax.Array:
        """A window's [keys, K] of [B, T, G, K]."""
        size = (1, self.tiles.keys, 1, x.shape[-1])
        window = lax.dynamic_slice(x, self._key_corner(at), size)
        return _for_products(window.reshape(-1, x.shape[-1]))

    def add_keys(self, x: jax.Array, window: jax.Array, at: jax.Array) -> jax.Array:
        """[B, G, K, T] with [K, keys] added in the window's place."""
        corner = (self.b, self.g, 0, self._key_start(at))
        old = lax.dynamic_slice(x, corner, (1, 1, *window.shape))
        return lax.dynamic_update_slice(x, old + window, corner)

    def _corner(self) -> tuple[Any, ...]:
        return self.b, self.start, self.g * self.shared, 0

    def _key_corner(self, at: jax.Array) -> tuple[Any, ...]:
        return self.b, self._key_start(at), self.g, 0

    def _key_start(self, at: jax.Array) -> jax.Array:
        return jnp.minimum(at, self.problem.k.shape[1] - self.tiles.keys)

    def _row(self, x: jax.Array) -> jax.Array:
        return lax.dynamic_slice(x, (self.b, self.start), (1, self.tiles.rows))[0]

    def _places(self, at: jax.Array) -> tuple[jax.Array, jax.Array]:
        place = self.problem.place
        assert place is not None
        window = lax.dynamic_slice(place, (self.b, self._key_start(at)), (1, self.tiles.keys))[0]
        return self._row(place), window

    def _of_group(self, table: jax.Array) -> jax.Array:
        return lax.dynamic_slice_in_dim(table, self.g * self.shared, self.shared, 0)

    def _per_head(self, x: jax.Array) -> jax.Array:
        return x if self.shared == 1 else jnp.repeat(x, self.shared, axis=0)


def _for_products(tile: jax.Array) -> jax.Array:
    """On a CPU, bfloat16 products of a tile's size run at half the speed of float32 ones.

    Widened bit by bit: XLA would undo a conversion, and multiply in bfloat16 after all.
    """
    if jax.default_backend() != "cpu" or tile.dtype != jnp.bfloat16:
        return tile
    bits = lax.bitcast_convert_type(tile, jnp.uint16).astype(jnp.uint32)
    return lax.bitcast_convert_type(bits << 16, jnp.float32)


def _tile_count(problem: _Problem, tiles: Tiles) -> int:
    b, t, groups, _ = problem.k.shape
    return b * groups * -(-t // tiles.rows)


def _pointwise(activation: Activation, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Weights before division, and their derivative."""
    s = jax.nn.sigmoid(scores)
    slope = s * (1 - s)
    return (scores * s, s + scores * slope) if activation == "silu" else (s, slope)


def _dot(a: jax.Array, b: jax.Array, over_a: int = 1, over_b: int = 0) -> jax.Array:
    """Product over one axis of each, accumulated in float32."""
    axes = (((over_a,), (over_b,)), ((), ()))
    return lax.dot_general(a, b, axes, preferred_element_type=jnp.float32)


def _zeros_like(x: jax.Array | None) -> jax.Array | None:
    return None if x is None else jnp.zeros_like(x)


def _no_gradient(x: jax.Array) -> Any:
    """The cotangent of what is not differentiated."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.zeros_like(x)
    return np.zeros(x.shape, jax.dtypes.float0)
