"""Attention for serving: the history is encoded once, and new tokens attend to it.

The history is visited window by window with an online softmax (Milakov & Gimelshein 2018), in plain
XLA for every device. A derivative in reverse mode is defined only where it is asked for.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ligr_jax.ops.attention.scores import Activation, RelativeBias, bias_scores
from ligr_jax.ops.masks import Mask, allowed_keys, dense_mask

# Keys of the history that are attended to at a time: their scores stay in the cache of a CPU.
_WINDOW = 256


class KeyValues(NamedTuple):
    """What a layer keeps of S tokens for those that attend to them later.

    keys_BSGK: [B, S, G, K].
    values_BSGK: [B, S, G, K].
    """

    keys_BSGK: jax.Array
    values_BSGK: jax.Array


class Past(NamedTuple):
    """The history that T new tokens attend to, in one layer.

    kept: keys and values of S history tokens, padded at the end; finite in padding.
    length: int32 [B, T], or [B, 1] if equal for all new tokens: each sees the first `length`
        history tokens.
    position: [B, S], coordinates of the history for a relative bias; None without one.
    start: int32, as `length`: history tokens before `start` are not seen. None: all are.
    oldest: int32, as `length`, and at most `start`: except the first `oldest` ones. None: 0.
    """

    kept: KeyValues
    length: jax.Array
    position: jax.Array | None = None
    start: jax.Array | None = None
    oldest: jax.Array | None = None

    @property
    def keys(self) -> jax.Array:
        """Number of history tokens that each new token sees, int32 [B, T or 1]."""
        keys = self.length if self.start is None else self.length - self.start
        return keys if self.oldest is None else keys + self.oldest


def append_to_past(
    past: Past, new: KeyValues, hi: jax.Array, position: jax.Array | None = None
) -> Past:
    """Return the kept tokens followed by the new ones, as each new token sees them.

    Args:
        past: the kept tokens; a new token that sees another new token sees all of them.
        new: keys and values of the new tokens, [B, T, G, K].
        hi: int32 [B, T]; each new token sees the first `hi` new tokens.
        position: [B, T], coordinates of the new tokens for a relative bias; None without one.

    Returns:
        A history of S + T tokens without `start` and `oldest`.
    """
    b, t = hi.shape
    # Without a token that sees a new one, it does not matter where the new tokens lie.
    first = past.length.max(axis=1, keepdims=True)
    rows, index = jnp.arange(b)[:, None], first + jnp.arange(t, dtype=jnp.int32)

    def joined(old: jax.Array, x: jax.Array) -> jax.Array:
        longer = jnp.pad(old, [(0, t if axis == 1 else 0) for axis in range(old.ndim)])
        return longer.at[rows, index].set(x)

    return Past(
        kept=KeyValues(*(joined(old, x) for old, x in zip(past.kept, new))),
        length=past.length + hi,
        position=None
        if past.position is None or position is None
        else joined(past.position, position),
    )


def attend_cached(
    q_BTHK: jax.Array,
    k_BTGK: jax.Array,
    v_BTGK: jax.Array,
    past: Past,
    mask: Mask | None = None,
    *,
    activation: Activation = "softmax",
    bias: RelativeBias | None = None,
) -> jax.Array:
    """Attend from new tokens to a cached history, as `attend` would in one row of both.

    Without a mask, the new tokens are the candidates of a request: each sees its part of the
    history and itself, but no other candidate. Then nothing of size T x T is computed.
    Memory is linear in T, and in S.

    Args:
        q_BTHK: [B, T, H, K], queries of the new tokens.
        k_BTGK: [B, T, G, K], keys of the new tokens.
        v_BTGK: [B, T, G, K], values of the new tokens.
        past: the history.
        mask: the allowed pairs among new tokens; None if each sees only itself.
        activation: how scores become weights; see `attend`.
        bias: a relative bias with the coordinates of the new tokens; `past.position` has those of
            the history.

    Returns:
        [B, T, H, K], in the dtype of the queries.

    Raises:
        ValueError: there is a bias but no `past.position`.
    """
    shared = q_BTHK.shape[2] // k_BTGK.shape[2]
    if bias is not None and past.position is None:
        raise ValueError(
            "the bias of cached attention has no past.position; give the history's coordinates"
        )

    # The new tokens among themselves, then the history, window by window.
    q_BHTK = jnp.moveaxis(q_BTHK, 2, 1)
    k_BTHK, v_BTHK = _shared_by(k_BTGK, shared), _shared_by(v_BTGK, shared)
    if mask is None:
        scores = _scores("BHTK,BTHK->BHT", q_BHTK, k_BTHK)[..., None]
        if bias is not None:
            scores += bias.table[:, :1, None]  # distance 0 is in bucket 0
        highest = scores
        weights = _weigh(activation, scores, True, highest)
        mixed_BHTK = weights * jnp.moveaxis(v_BTHK, 1, 2)
        allowed_new: jax.Array | int = 1
    else:
        scores = _scores("BHTK,BUHK->BHTU", q_BHTK, k_BTHK)
        if bias is not None:
            scores += bias_scores(bias.table, bias.position, bias.position)
        allowed = dense_mask(mask)[:, None]
        highest = jnp.where(allowed, scores, -jnp.inf).max(-1, keepdims=True)
        weights = _weigh(activation, scores, allowed, highest)
        mixed_BHTK = _mix("BHTU,BUHK->BHTK", weights, v_BTHK)
        allowed_new = jnp.maximum(allowed_keys(mask), 1)
    state = (highest, weights.sum(-1, keepdims=True), mixed_BHTK.astype(jnp.float32))
    _, total, mixed_BHTK = fold_history(q_BHTK, past, state, activation, bias)
    if activation != "softmax":
        total = (past.keys + allowed_new)[:, None, :, None]
    return jnp.moveaxis(mixed_BHTK / total, 1, 2).astype(q_BTHK.dtype)


def fold_history(
    q_BHTK: jax.Array,
    past: Past,
    state: tuple[jax.Array, jax.Array, jax.Array],
    activation: Activation,
    bias: RelativeBias | None,
    *,
    differentiable: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Add a history to the state of an online softmax, or to un-normalized sums.

    Args:
        q_BHTK: [B, H, T, K], queries.
        past: the history.
        state: float32; of the keys so far, the highest score [B, H, T, 1] (used by softmax), the
            sum of weights [B, H, T, 1] and the weighted sum of values [B, H, T, K].
        activation: how scores become weights.
        bias: as in `attend_cached`.
        differentiable: whether a derivative in reverse mode is defined; then S is a number, and
            windows without any token are visited as well.

    Returns:
        The state with the history.
    """
    keys = past.kept.keys_BSGK.shape[1]
    shared = q_BHTK.shape[1] // past.kept.keys_BSGK.shape[2]
    width = jax.core.min_dim(_WINDOW, keys)  # `keys` may be symbolic, for `jax.export`

    def visit_window(number: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        # The last window is moved back inside the row; its keys of the window before are masked.
        highest, total, mixed_BHTK = state
        first = number * width
        start = jnp.minimum(first, keys - width)
        k_BWHK, v_BWHK = (
            _shared_by(lax.dynamic_slice_in_dim(x, start, width, axis=1), shared) for x in past.kept
        )
        scores = _scores("BHTK,BWHK->BHTW", q_BHTK, k_BWHK)
        if bias is not None and past.position is not None:
            position = lax.dynamic_slice_in_dim(past.position, start, width, axis=1)
            scores += bias_scores(bias.table, bias.position, position)
        index = start + jnp.arange(width)
        seen = (index >= first) & (index < past.length[..., None])
        if past.start is not None:
            oldest = 0 if past.oldest is None else past.oldest[..., None]
            seen &= (index >= past.start[..., None]) | (index < oldest)
        allowed = seen[:, None]
        in_window = jnp.where(allowed, scores, -jnp.inf).max(-1, keepdims=True)
        new_highest = jnp.maximum(highest, in_window)
        weights = _weigh(activation, scores, allowed, new_highest)
        # Softmax online: a higher score shrinks the sums so far.
        shrink = jnp.exp(highest - new_highest) if activation == "softmax" else 1.0
        total = total * shrink + weights.sum(-1, keepdims=True)
        mixed_BHTK = mixed_BHTK * shrink + _mix("BHTW,BWHK->BHTK", weights, v_BWHK)
        return new_highest, total, mixed_BHTK

    visited = keys if differentiable else jnp.max(past.length, initial=0)  # padding is not visited
    windows = -(-visited // width)
    result: tuple[jax.Array, jax.Array, jax.Array] = lax.fori_loop(0, windows, visit_window, state)
    return result


def _weigh(
    activation: Activation, scores: jax.Array, allowed: jax.Array | bool, highest: jax.Array
) -> jax.Array:
    """Return the weights of scores [B, H, T, columns]; of softmax, relative to `highest`."""
    if activation == "softmax":
        return jnp.exp(jnp.where(allowed, scores, -jnp.inf) - highest)
    activated = jax.nn.silu(scores) if activation == "silu" else jax.nn.sigmoid(scores)
    return jnp.where(allowed, activated, 0.0)


def _shared_by(x_BSGK: jax.Array, queries: int) -> jax.Array:
    """Repeat keys or values for the query heads that share them."""
    return jnp.repeat(x_BSGK, queries, axis=2) if queries > 1 else x_BSGK


def _scores(axes: str, q_BHTK: jax.Array, k_BSHK: jax.Array) -> jax.Array:
    products = jnp.einsum(axes, q_BHTK, k_BSHK, preferred_element_type=jnp.float32)
    scores: jax.Array = products * (q_BHTK.shape[-1] ** -0.5)
    return scores


def _mix(axes: str, weights: jax.Array, v_BSHK: jax.Array) -> jax.Array:
    weights = weights.astype(v_BSHK.dtype)
    return jnp.einsum(axes, weights, v_BSHK, preferred_element_type=jnp.float32)
