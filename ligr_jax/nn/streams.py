"""The two streams of a two-stream model, and what their tokens see.

History stream: one token per impression, which sees earlier impressions of its member and itself.
Candidate stream: M tokens per impression, which see the history tokens of earlier sessions, and the
tokens of their own impression. No token sees a candidate token of another impression.

In training, a row has both streams. In serving, a history is encoded once (`encode`), new
impressions extend it (`extend`), and candidates read it (`score`). A `View` describes each of these
passes, so that a layer is written once: it calls `attend_history` for the history stream and
`attend_range` for the candidate stream.

Why no action of a session reaches its own logits: the history token of impression j, in every
layer, is a function of the member's impressions up to j; the candidate tokens of impression i are a
function of the features of i and of the history tokens of earlier sessions. Sessions are contiguous
and in order, so none of these tokens follows the start of i's session. The history stream may
therefore be plainly causal, and one pass over a row equals serving each session alone.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ligr_jax.config import ModelConfig
from ligr_jax.ops.attention import (
    Activation,
    KeyValues,
    OwnKeys,
    Past,
    RelativeBias,
    attend,
    attend_cached,
    attend_candidates,
    attend_candidates_cached,
)
from ligr_jax.ops.masks import (
    Mask,
    MaskKind,
    allowed_keys,
    allowed_pairs,
    earlier_mask,
    newest_of,
)


class Streams(NamedTuple):
    """Residual streams; one of them is None in the passes of serving.

    history_BND: [B, N, D].
    candidates_BNMD: [B, N, M, D].
    """

    history_BND: jax.Array | None
    candidates_BNMD: jax.Array | None


class PastView(NamedTuple):
    """The part of a kept history that the tokens of a pass see.

    length: int32 [B, N or 1], what a history token sees: the first `length` kept impressions.
    end: int32 [B, N or 1], what a candidate token sees.
    position: [B, S], coordinates of the kept impressions for a relative bias; None without one.
    """

    length: jax.Array
    end: jax.Array
    position: jax.Array | None


class View(NamedTuple):
    """What the tokens of one pass see.

    history: earlier impressions of the batch that a history token sees, [B, N], with own edges;
        None if there is no history stream.
    ranges: earlier impressions of the batch that a candidate token sees, [B, N]; None in serving.
    position: [B, N], coordinates of the impressions for a relative bias; None without one.
    past: the kept history; None in training and in `encode`.
    window: int32 [], the `window` of `attend_history` and `attend_range` in this layer; [L] for a
        stack of layers. None for all.
    request_end: int32 [B, 1]; the windows of history tokens are counted from here instead of from
        each token, for a history that is encoded for one request (`ligr_jax.nn.recompute`). None
        in other passes.
    """

    history: Mask | None
    ranges: Mask | None
    position: jax.Array | None = None
    past: PastView | None = None
    window: jax.Array | None = None
    request_end: jax.Array | None = None


def view_of_row(
    config: ModelConfig, member: jax.Array, session: jax.Array, position: jax.Array | None
) -> View:
    """Return the view of a training row.

    Args:
        config: the model; `mask` limits the candidates, `streams.history` the history stream.
        member, session: int32 [B, N], as in `Batch`.
        position: coordinates for a relative bias, or None.
    """
    kind: MaskKind = "session" if config.streams.history == "session" else "causal"
    earlier = earlier_mask(member, session, kind)
    itself = jnp.broadcast_to(jnp.arange(member.shape[1], dtype=jnp.int32), member.shape)
    return View(
        history=earlier._replace(own=itself),
        ranges=earlier_mask(member, session, config.mask),
        position=position,
    )


def attend_history(
    config: ModelConfig,
    q_BNHK: jax.Array,
    new: KeyValues,
    view: View,
    kept: KeyValues | None,
    *,
    activation: Activation = "softmax",
    bias: RelativeBias | None = None,
    window: int | jax.Array | None = None,
) -> jax.Array:
    """Attend from history tokens to earlier ones and to themselves, [B, N, H, K].

    Args:
        config: gives the implementation of attention.
        q_BNHK: [B, N, H, K], queries.
        new: keys and values of the same tokens.
        view: what they see.
        kept: keys and values of the kept history in this layer, [B, S, G, K]; None without a past.
        activation, bias: as in `attend`.
        window: each token sees at most its newest `window` >= 1 keys, itself included; None for
            all. With `view.request_end`, it sees the newest `window` tokens before that end, and
            itself.
    """
    assert view.history is not None
    if view.request_end is None or window is None:
        mask = newest_of(view.history, None if window is None else window - 1)
    else:
        cut = jnp.clip(view.request_end - window, view.history.lo, view.history.hi)
        mask = view.history._replace(lo=cut)
    if view.past is None or kept is None:
        return attend(
            q_BNHK,
            *new,
            mask,
            activation=activation,
            bias=bias,
            implementation=config.implementation,
        )
    length, start = view.past.length, None
    if window is not None:
        room = jnp.maximum(window - 1 - (mask.hi - mask.lo), 0)
        start = jnp.maximum(length - room, 0)
        length = jnp.broadcast_to(length, q_BNHK.shape[:2])
    past = Past(kept=kept, length=length, position=view.past.position, start=start)
    return attend_cached(q_BNHK, *new, past, mask, activation=activation, bias=bias)


def attend_range(
    config: ModelConfig,
    q_BNMHK: jax.Array,
    history: KeyValues | None,
    view: View,
    kept: KeyValues | None,
    own: OwnKeys | None = None,
    *,
    activation: Activation = "softmax",
    bias: RelativeBias | None = None,
    window: int | jax.Array | None = None,
) -> jax.Array:
    """Attend from candidate tokens to the history tokens of earlier sessions, [B, N, M, H, K].

    Args:
        config: gives the implementation of attention.
        q_BNMHK: [B, N, M, H, K], queries.
        history: keys and values of the history tokens of the row, [B, N, G, K]; None in serving.
        view: what the tokens see.
        kept: keys and values of the kept history in this layer, [B, S, G, K]; None in training.
        own: keys of the same impression, or None.
        activation: how scores become weights.
        bias: as in `attend_candidates`.
        window: each token sees at most the newest `window` >= 1 history tokens of its range; None
            for all.
    """
    if history is not None:
        assert view.ranges is not None
        return attend_candidates(
            q_BNMHK,
            *history,
            newest_of(view.ranges, window),
            own,
            activation=activation,
            bias=bias,
            implementation=config.implementation,
        )
    assert view.past is not None
    assert kept is not None
    end = view.past.end
    past = Past(
        kept=kept,
        length=end,
        position=view.past.position,
        start=None if window is None else jnp.maximum(end - window, 0),
    )
    return attend_candidates_cached(
        q_BNMHK,
        past,
        own,
        activation=activation,
        bias=bias,
        differentiable=config.streams.history == "recompute",
    )


def causal_pairs(
    config: ModelConfig, member: jax.Array, session: jax.Array
) -> dict[str, jax.Array]:
    """Count the pairs of `config.depth` layers with the windows of `config.streams`.

    With `history=recompute`, each impression has a history of its own, of as many tokens in a layer
    as it sees: `range_pairs` is also the number of these tokens.

    Args:
        config: the model.
        member, session: int32 [B, N], as in `Batch`.

    Returns:
        `stream_pairs` and `range_pairs` of `ligr_jax.nn.work.Work`, float32 [].
    """
    view = view_of_row(config, member, session, None)
    history, ranges = view.history, view.ranges
    assert history is not None
    assert ranges is not None
    windows = config.streams.layer_windows(config.depth) or (None,) * config.depth
    seen_BN = [allowed_keys(newest_of(ranges, w)).astype(jnp.float32) for w in windows]
    if config.streams.history == "recompute":
        of_history = [(n * (n + 1) / 2).sum() for n in seen_BN]
    else:
        of_history = [allowed_pairs(newest_of(history, w and w - 1)) for w in windows]
    return {
        "stream_pairs": jnp.stack(of_history).sum(),
        "range_pairs": jnp.stack(seen_BN).sum(),
    }
