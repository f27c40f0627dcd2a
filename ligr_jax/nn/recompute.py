"""Encoding the history once per request: `model.streams.history=recompute`.

In some publications a history token depends on the request that it is encoded for: a pyramid keeps
the newest tokens before the request, and fewer in higher layers. One pass over a row cannot compute
this form, because each of its sessions needs an encoding of its own. Here every impression is a
request:

    h of request i   the newest w_1 history tokens that impression i sees
    layer l          tokens are the newest w_l of them, which see each other causally;
                     the candidate tokens of i see all of them

with w = `model.streams.windows`. The layers run twice for a request, as in serving: over its
history, and over its candidate tokens. In training, the impressions of a row are visited in order
and the backward pass computes each request again, so that memory does not grow with their number.
Time does: a row of N impressions costs N passes over w_1 tokens. This form is for comparisons on
small data. It has the parameters of the form of one pass, and equals that form without a cut.

In serving, the history tokens are kept, and `score` encodes the newest w_1.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.config import ModelConfig
from ligr_jax.nn.streams import PastView, Streams, View, view_of_row


class _Requests(NamedTuple):
    """One request in each row: C candidates, which see the history tokens start to end.

    candidates_BCMD: [B, C, M, D].
    position: [B, C], coordinates of the candidates for a relative bias; None without one.
    start, end: int32 [B, 1].
    """

    candidates_BCMD: jax.Array
    position: jax.Array | None
    start: jax.Array
    end: jax.Array


class _HistoryTokens(NamedTuple):
    """The input of the history stream.

    tokens_BSD: [B, S, D].
    position: [B, S], coordinates for a relative bias; None without one.
    """

    tokens_BSD: jax.Array
    position: jax.Array | None


def recompute_layers(
    layers: nn.Module,
    config: ModelConfig,
    streams: Streams,
    view: View,
    past: jax.Array | None,
    deterministic: bool,
) -> tuple[Streams, Any]:
    """Apply layers to a history that is encoded for each request.

    Args:
        layers: bound layers of a two-stream model, with initialized parameters.
        config: the model.
        streams: both streams in training, else one of them; see `ligr_jax.nn.two_stream`.
        view: what the tokens see.
        past: the kept history tokens, [1, B, S, D]; None without any.
        deterministic: if False, dropout is applied, which needs a `dropout` key.

    Returns:
        The streams, and the history tokens to keep, [1, B, N, D]; None if there are candidates.
    """
    h_BND, c_BNMD = streams
    if c_BNMD is None:
        assert h_BND is not None
        return streams, h_BND[None]
    key = None if deterministic or config.dropout == 0 else layers.make_rng("dropout")
    encoder = _RequestEncoder(config, *layers.unbind(), deterministic)
    if h_BND is None:
        assert past is not None
        assert view.past is not None
        end = view.past.end
        request = _Requests(c_BNMD, view.position, start=jnp.zeros_like(end), end=end)
        return Streams(
            None, encoder(_HistoryTokens(past[0], view.past.position), request, key)
        ), None

    assert view.ranges is not None
    history = _HistoryTokens(h_BND, view.position)
    requests = _Requests(c_BNMD, view.position, start=view.ranges.lo, end=view.ranges.hi)
    # The impressions become the axis of the scan: [B, N, ..] to [N, B, 1, ..].
    by_impression = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0)[:, :, None], requests)
    keys = None if key is None else jax.random.split(key, c_BNMD.shape[1])

    def step(_: None, of_impression: tuple[_Requests, jax.Array | None]) -> tuple[None, jax.Array]:
        return None, encoder(history, *of_impression)

    _, c_NB1MD = jax.lax.scan(jax.checkpoint(step, prevent_cse=False), None, (by_impression, keys))
    return Streams(h_BND, jnp.moveaxis(c_NB1MD[:, :, 0], 0, 1)), None


class _RequestEncoder(NamedTuple):
    """Layers as a pure function of one request per row."""

    config: ModelConfig
    layers: nn.Module
    variables: Any
    deterministic: bool

    def __call__(
        self, history: _HistoryTokens, requests: _Requests, key: jax.Array | None
    ) -> jax.Array:
        """Return the candidate tokens after the layers, [B, C, M, D].

        Args:
            history: history tokens of each row.
            requests: candidates and their part of the history.
            key: of dropout; None without dropout.
        """
        of_history, of_candidates = (None, None) if key is None else jax.random.split(key)
        newest, length = self._newest(history, requests)
        valid = jnp.arange(newest.tokens_BSD.shape[1]) < length
        member = valid.astype(jnp.int32)
        view = view_of_row(self.config, member, jnp.zeros_like(member), None)
        view = view._replace(ranges=None, position=newest.position, request_end=length)
        _, kept = self._apply(Streams(newest.tokens_BSD, None), view, None, of_history, keep=True)

        past = PastView(length=length, end=length, position=newest.position)
        view = View(history=None, ranges=None, position=requests.position, past=past)
        streams = Streams(None, requests.candidates_BCMD)
        streams, _ = self._apply(streams, view, kept, of_candidates, keep=False)
        assert streams.candidates_BNMD is not None
        return streams.candidates_BNMD

    def _newest(
        self, history: _HistoryTokens, requests: _Requests
    ) -> tuple[_HistoryTokens, jax.Array]:
        """Return the newest w_1 tokens of the requests, padded at the end, and their numbers,
        int32 [B, 1]."""
        size = history.tokens_BSD.shape[1]  # symbolic in `jax.export`
        window = self.config.streams.layer_windows(self.config.depth)[0]
        width = min(window, size) if isinstance(size, int) else window
        first = jnp.maximum(requests.start, requests.end - width)
        index = jnp.minimum(first + jnp.arange(width, dtype=jnp.int32), size - 1)
        newest = jax.tree.map(
            lambda x: jnp.take_along_axis(x, index if x.ndim == 2 else index[..., None], axis=1),
            history,
        )
        return newest, requests.end - first

    def _apply(
        self, streams: Streams, view: View, past: Any, key: jax.Array | None, *, keep: bool
    ) -> tuple[Streams, Any]:
        rngs = {} if key is None else {"dropout": key}
        result: tuple[Streams, Any] = self.layers.apply(
            self.variables, streams, view, past, self.deterministic, keep, rngs=rngs
        )
        return result
