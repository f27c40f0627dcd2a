"""Attention by tiles in plain XLA: memory linear in T, and work only where ranges have keys.

A query tile visits windows of keys from the lowest `lo` to the highest `hi` of its tokens, and then
the own keys of its tokens that no window has covered. Windows start exactly at `lo`, unaligned, so
a packed member costs as much as it would alone. The last window is moved back inside the row, and
keys of an earlier window are masked in it. Softmax is online (Milakov & Gimelshein 2018); the
backward pass recomputes the scores and uses the saved normalizer (FlashAttention, Dao et al. 2022).

The loop runs over one head group of one row at a time: on a CPU its tiles stay in cache, and slices
of [B, T, H, K] need no transpose. Several cores are used by splitting the batch over devices.

Letters: R = rows x H / G, the rows of a query tile (tokens times heads that share keys); W keys of
a window.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ligr_jax.ops.attention.scores import (
    LOWEST,
    Activation,
    RelativeBias,
    bias_scores,
    bucket_distance,
)
from ligr_jax.ops.masks import Mask


class Tiles(NamedTuple):
    """The number of tokens in a query tile, and of keys in a window."""

    rows: int
    keys: int


# Measured: experiments/attention.py.
HISTORY_TILES = Tiles(128, 128)
SESSION_TILES = Tiles(64, 128)


class _Problem(NamedTuple):
    """The arrays that tiles are cut from.

    q_BTHK, k_BTGK, v_BTGK, mask: as in `attend`.
    table, position: of the relative bias, or None.
    """

    q_BTHK: jax.Array
    k_BTGK: jax.Array
    v_BTGK: jax.Array
    mask: Mask
    table: jax.Array | None
    position: jax.Array | None


def attend_blocked(
    q_BTHK: jax.Array,
    k_BTGK: jax.Array,
    v_BTGK: jax.Array,
    mask: Mask,
    activation: Activation,
    bias: RelativeBias | None,
    tiles: Tiles | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Compute `attend_with_normalizer` by tiles; supports reverse-mode derivatives.

    Arguments and results are those of `attend_with_normalizer`, and:
        tiles: sizes of tiles; by default chosen by the kind of mask. A query tile has `tiles.rows`
            rows in all, over the heads that share keys.
    """
    if tiles is None:
        tiles = SESSION_TILES if mask.own is None else HISTORY_TILES
    t = q_BTHK.shape[1]
    shared = q_BTHK.shape[2] // k_BTGK.shape[2]
    tiles = Tiles(rows=min(max(tiles.rows // shared, 1), t), keys=min(tiles.keys, t))
    table, position = (None, None) if bias is None else (bias.table, bias.position)
    return _attend(activation, tiles, _Problem(q_BTHK, k_BTGK, v_BTGK, mask, table, position))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attend(activation: Activation, tiles: Tiles, problem: _Problem) -> tuple[jax.Array, jax.Array]:
    return _forward(activation, tiles, problem)[0]


def _forward(
    activation: Activation, tiles: Tiles, problem: _Problem
) -> tuple[tuple[jax.Array, jax.Array], Any]:
    """Return the results and the residuals of the backward pass.

    Among the residuals is the log of each token's normalizer: the log of the sum of softmax's
    weights, or of the number of keys.
    """

    def visit_tile(number: jax.Array, results: tuple[jax.Array, jax.Array]) -> Any:
        tile = _QueryTile(number, problem, tiles, first_time_only=False)
        q_RK = tile.rows_of(problem.q_BTHK)

        def visit_window(
            first_key: jax.Array, state: tuple[jax.Array, ...]
        ) -> tuple[jax.Array, ...]:
            highest, total, mixed = state
            k_WK = tile.keys_of(problem.k_BTGK, first_key)
            v_WK = tile.keys_of(problem.v_BTGK, first_key)
            scores = tile.scores(q_RK, k_WK, first_key)
            allowed = tile.allowed(first_key)
            if activation == "softmax":
                # Online softmax: when a higher score appears, shrink the sums so far to match it.
                scores = jnp.where(allowed, scores, -jnp.inf)
                new_highest = jnp.maximum(highest, scores.max(1, keepdims=True))
                weights = jnp.exp(scores - new_highest)
                shrink = jnp.exp(highest - new_highest)
                highest = new_highest
                total = total * shrink
                mixed = mixed * shrink
                total += weights.sum(1, keepdims=True)
            else:
                weights = jnp.where(allowed, _pointwise(activation, scores)[0], 0.0)
                total += allowed.sum(1, keepdims=True)
            return highest, total, mixed + _dot(weights.astype(v_WK.dtype), v_WK)

        zero = jnp.zeros((len(q_RK), 1), jnp.float32)
        start = (
            zero + (LOWEST if activation == "softmax" else 0),
            zero,
            jnp.zeros_like(q_RK, zero.dtype),
        )
        highest, total, mixed = tile.over_windows(visit_window, start)
        mean = mixed / jnp.where(total > 0, total, 1)
        lse = jnp.where(total > 0, highest + jnp.log(jnp.where(total > 0, total, 1)), LOWEST)
        return tile.put(results[0], mean), tile.put(results[1], lse)

    # A float32 output: XLA would copy a bfloat16 one in every iteration.
    out_BTHK = jnp.zeros_like(problem.q_BTHK, jnp.float32)
    lse_BTH1 = jnp.full((*out_BTHK.shape[:3], 1), LOWEST)
    out_BTHK, lse_BTH1 = lax.fori_loop(
        0, _tile_count(problem, tiles), visit_tile, (out_BTHK, lse_BTH1)
    )
    results = (out_BTHK.astype(problem.q_BTHK.dtype), lse_BTH1[..., 0])
    return results, (problem, out_BTHK, lse_BTH1)


def _backward(
    activation: Activation, tiles: Tiles, saved: Any, d_results: tuple[jax.Array, jax.Array]
) -> Any:
    """Return the gradient of every array of the problem, by the same sweep over tiles.

    Gradients of keys, values and the bias table are carried through the whole loop, since many
    query tiles add to them; those of queries belong to one tile.
    """
    problem, out_BTHK, lse_BTH1 = saved
    d_out_BTHK, d_lse_BTH = d_results
    scale = problem.q_BTHK.shape[-1] ** -0.5

    def visit_tile(number: jax.Array, gradients: Any) -> Any:
        tile = _QueryTile(number, problem, tiles, first_time_only=True)
        q_RK, d_mixed, lse = (tile.rows_of(x) for x in (problem.q_BTHK, d_out_BTHK, lse_BTH1))
        # Softmax's gradient subtracts this from the gradient of every weight in a row.
        delta = jnp.sum(tile.rows_of(out_BTHK) * d_mixed, 1, keepdims=True)
        delta -= tile.rows_of(d_lse_BTH[..., None])

        def visit_window(first_key: jax.Array, state: Any) -> Any:
            d_q, d_k, d_v, d_table = state
            k_WK = tile.keys_of(problem.k_BTGK, first_key)
            v_WK = tile.keys_of(problem.v_BTGK, first_key)

            # Recompute the weights, and the gradient of the scores.
            scores = tile.scores(q_RK, k_WK, first_key)
            allowed = tile.allowed(first_key)
            d_weights = _dot(d_mixed, v_WK, 1, 1)
            if activation == "softmax":
                weights = jnp.exp(jnp.where(allowed, scores - lse, LOWEST))
                d_scores = weights * (d_weights - delta)
            else:
                weights, slopes = (x * jnp.exp(-lse) for x in _pointwise(activation, scores))
                d_scores = slopes * d_weights
            weights, d_scores = (jnp.where(allowed, x, 0.0) for x in (weights, d_scores))

            # Add the window's part to the gradients.
            if d_table is not None:
                d_table = tile.add_bias_gradient(d_table, d_scores, first_key)
            weights, d_scores = (x.astype(v_WK.dtype) for x in (weights, d_scores))
            d_k = tile.add_keys(d_k, _dot(q_RK, d_scores, 0, 0), first_key)
            d_v = tile.add_keys(d_v, _dot(d_mixed, weights, 0, 0), first_key)
            return d_q + _dot(d_scores, k_WK), d_k, d_v, d_table

        d_q, *carried = gradients
        start = (jnp.zeros_like(q_RK, jnp.float32), *carried)
        tile_d_q, *carried = tile.over_windows(visit_window, start)
        return tile.add(d_q, tile_d_q), *carried

    # Gradients of keys and values are kept as [B, G, K, T]: adding to them is a third faster on a
    # CPU than with [B, T, G, K].
    zeros_BGKT = jnp.zeros([problem.k_BTGK.shape[i] for i in (0, 2, 3, 1)], jnp.float32)
    start = (
        jnp.zeros_like(problem.q_BTHK, jnp.float32),
        zeros_BGKT,
        zeros_BGKT,
        _zeros_like(problem.table),
    )
    d_q, d_k, d_v, d_table = lax.fori_loop(0, _tile_count(problem, tiles), visit_tile, start)
    d_k, d_v = (jnp.moveaxis(x, 3, 1) for x in (d_k, d_v))
    d_q, d_k, d_v = (x.astype(d_out_BTHK.dtype) for x in (scale * d_q, scale * d_k, d_v))
    no_mask, no_position = jax.tree.map(_no_gradient, (problem.mask, problem.position))
    return (_Problem(d_q, d_k, d_v, no_mask, d_table, no_position),)


_attend.defvjp(_forward, _backward)


class _QueryTile:
    """A tile of queries, for the heads that share keys, and the windows of keys it must visit.

    The heads of a group are adjacent within a token, so a tile is an array [R, K]. The last tile of
    a row is moved back inside the row. With `first_time_only`, its tokens that an earlier tile has
    processed are masked, so that no gradient is added twice.
    """

    def __init__(
        self, number: jax.Array, problem: _Problem, tiles: Tiles, first_time_only: bool
    ) -> None:
        _, t, heads, _ = problem.q_BTHK.shape
        groups = problem.k_BTGK.shape[2]
        per_row = -(-t // tiles.rows)
        self.problem = problem
        self.tiles = tiles
        self.shared = heads // groups
        self.b = number // (per_row * groups)
        self.g = number // per_row % groups
        begin = number % per_row * tiles.rows
        self.start = jnp.minimum(begin, t - tiles.rows)
        self.t = self.start + jnp.arange(tiles.rows, dtype=jnp.int32)
        self._set_ranges(problem.mask, begin if first_time_only else 0)

    def _set_ranges(self, mask: Mask, begin: jax.Array | int) -> None:
        """Set the ranges [lo, hi) and [own, t] of every token, and the number of windows."""
        end = mask.lo.shape[1]
        width = self.tiles.keys
        active = self._row(mask.valid) & (self.t >= begin)
        lo, hi = self._row(mask.lo), self._row(mask.hi)
        has_keys = active & (lo < hi)
        self.lo = jnp.where(has_keys, lo, end)
        self.hi = jnp.where(has_keys, hi, 0)
        self.first = self.lo.min()
        self.windows = jnp.maximum(-(-(self.hi.max() - self.first) // width), 0)
        self.all_windows = self.windows
        if mask.own is not None:
            # Further windows cover the own keys that lie beyond the windows of the ranges.
            self.own = jnp.where(active, self._row(mask.own), end)
            covered = jnp.where(self.windows > 0, self.first + self.windows * width, 0)
            self.first_own = jnp.maximum(self.own.min(), covered)
            last = jnp.where(active, self.t + 1, 0).max()
            self.all_windows += jnp.maximum(-(-(last - self.first_own) // width), 0)

    def over_windows(self, visit: Callable[[jax.Array, Any], Any], state: Any) -> Any:
        """Fold visit(first key, state) -> state over all windows; their number is data."""

        def first_key(i: jax.Array) -> jax.Array:
            in_ranges = self.first + i * self.tiles.keys
            if self.problem.mask.own is None:
                return in_ranges
            own = self.first_own + (i - self.windows) * self.tiles.keys
            return jnp.where(i < self.windows, in_ranges, own)

        return lax.fori_loop(0, self.all_windows, lambda i, s: visit(first_key(i), s), state)

    def allowed(self, first_key: jax.Array) -> jax.Array:
        """Return the mask's pairs in the window whose first key is `first_key`, bool [R, W]."""
        key = self._key_start(first_key) + jnp.arange(self.tiles.keys, dtype=jnp.int32)
        lo, hi, t = self.lo[:, None], self.hi[:, None], self.t[:, None]
        pairs = (key >= jnp.maximum(lo, first_key)) & (key < hi)
        if self.problem.mask.own is not None:
            pairs |= (key >= jnp.maximum(self.own[:, None], first_key)) & (key <= t)
        return self._per_head(pairs)

    def scores(self, q: jax.Array, k: jax.Array, first_key: jax.Array) -> jax.Array:
        """Return the scores [R, W] of queries [R, K] and a window's keys [W, K]."""
        scores = _dot(q, k, 1, 1) * (q.shape[-1] ** -0.5)
        if self.problem.table is not None:
            table = self._of_group(self.problem.table)
            bias = jnp.moveaxis(bias_scores(table, *self._positions(first_key)), 0, 1)
            scores += jnp.repeat(bias, self.shared // len(table), axis=1).reshape(scores.shape)
        result: jax.Array = scores
        return result

    def add_bias_gradient(
        self, d_table: jax.Array, d_scores: jax.Array, first_key: jax.Array
    ) -> jax.Array:
        """Add the gradient of scores [R, W] to the gradient of the bias table."""
        position, key_position = self._positions(first_key)
        bucket = bucket_distance(jnp.abs(position[:, None] - key_position), d_table.shape[1])
        of_group = self._of_group(d_table)
        by_table = d_scores.reshape(len(position), len(of_group), -1, d_scores.shape[1]).sum(2)
        new = of_group.at[:, bucket].add(jnp.moveaxis(by_table, 1, 0))
        return lax.dynamic_update_slice_in_dim(d_table, new, self.g * len(of_group), 0)

    def rows_of(self, x: jax.Array) -> jax.Array:
        """Return the tile's part [R, K] of an array [B, T, H, K]."""
        size = (1, self.tiles.rows, self.shared, x.shape[-1])
        return _for_products(lax.dynamic_slice(x, self._corner(), size).reshape(-1, x.shape[-1]))

    def put(self, x: jax.Array, tile: jax.Array) -> jax.Array:
        """Return an array [B, T, H, K] with the tile's part replaced by `tile` [R, K]."""
        block = tile.reshape(1, self.tiles.rows, self.shared, -1).astype(x.dtype)
        return lax.dynamic_update_slice(x, block, self._corner())

    def add(self, x: jax.Array, tile: jax.Array) -> jax.Array:
        """Return an array [B, T, H, K] with `tile` [R, K] added to the tile's part."""
        return self.put(x, self.rows_of(x) + tile)

    def keys_of(self, x: jax.Array, first_key: jax.Array) -> jax.Array:
        """Return a window's part [W, K] of an array [B, T, G, K]."""
        size = (1, self.tiles.keys, 1, x.shape[-1])
        window = lax.dynamic_slice(x, self._key_corner(first_key), size)
        return _for_products(window.reshape(-1, x.shape[-1]))

    def add_keys(self, x: jax.Array, window: jax.Array, first_key: jax.Array) -> jax.Array:
        """Return an array [B, G, K, T] with `window` [K, W] added to the window's part."""
        corner = (self.b, self.g, 0, self._key_start(first_key))
        old = lax.dynamic_slice(x, corner, (1, 1, *window.shape))
        return lax.dynamic_update_slice(x, old + window, corner)

    def _corner(self) -> tuple[Any, ...]:
        return self.b, self.start, self.g * self.shared, 0

    def _key_corner(self, first_key: jax.Array) -> tuple[Any, ...]:
        return self.b, self._key_start(first_key), self.g, 0

    def _key_start(self, first_key: jax.Array) -> jax.Array:
        return jnp.minimum(first_key, self.problem.k_BTGK.shape[1] - self.tiles.keys)

    def _row(self, x: jax.Array) -> jax.Array:
        return lax.dynamic_slice(x, (self.b, self.start), (1, self.tiles.rows))[0]

    def _positions(self, first_key: jax.Array) -> tuple[jax.Array, jax.Array]:
        position = self.problem.position
        assert position is not None
        window = lax.dynamic_slice(
            position, (self.b, self._key_start(first_key)), (1, self.tiles.keys)
        )[0]
        return self._row(position), window

    def _of_group(self, table: jax.Array) -> jax.Array:
        """Return the rows of a bias table for the heads that share these keys."""
        rows = len(table) // self.problem.k_BTGK.shape[2]
        return lax.dynamic_slice_in_dim(table, self.g * rows, rows, 0)

    def _per_head(self, x: jax.Array) -> jax.Array:
        return x if self.shared == 1 else jnp.repeat(x, self.shared, axis=0)


def _for_products(tile: jax.Array) -> jax.Array:
    """Widen a bfloat16 tile to float32 on a CPU, where small float32 products are twice as fast.

    The widening works on bits: XLA would undo a conversion and multiply in bfloat16 after all.
    """
    if jax.default_backend() != "cpu" or tile.dtype != jnp.bfloat16:
        return tile
    bits = lax.bitcast_convert_type(tile, jnp.uint16).astype(jnp.uint32)
    return lax.bitcast_convert_type(bits << 16, jnp.float32)


def _tile_count(problem: _Problem, tiles: Tiles) -> int:
    b, t, groups, _ = problem.k_BTGK.shape
    return b * groups * -(-t // tiles.rows)


def _pointwise(activation: Activation, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return weights before the division by the number of keys, and their derivative."""
    s = jax.nn.sigmoid(scores)
    slope = s * (1 - s)
    return (scores * s, s + scores * slope) if activation == "silu" else (s, slope)


def _dot(a: jax.Array, b: jax.Array, over_a: int = 1, over_b: int = 0) -> jax.Array:
    """Multiply over one axis of each array, with float32 sums."""
    axes = (((over_a,), (over_b,)), ((), ()))
    return lax.dot_general(a, b, axes, preferred_element_type=jnp.float32)


def _zeros_like(x: jax.Array | None) -> jax.Array | None:
    return None if x is None else jnp.zeros_like(x)


def _no_gradient(x: jax.Array) -> Any:
    """Return the zero cotangent of an array that is not differentiated."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.zeros_like(x)
    return np.zeros(x.shape, jax.dtypes.float0)
