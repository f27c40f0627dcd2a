"""LiGR's block in the form of two streams: which part of a difference is the form?

    h_j   one history token x_j + a_j per impression, in place of an item and an action token
    c_i   M candidate tokens, which see the history of earlier sessions and each other
    h, c <- h, c + MHA(LN(.)) * sigmoid(. W_1)       then the gated feed-forward layer

Both streams share all weights of a layer. All other two-stream models are compared with this one at
equal masks, and this one with LiGR. It has no set-wise layers (our choice: none of the rivals has
them).
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.config import ModelConfig
from ligr_jax.nn.blocks import FeedForward, Gated, relative_bias
from ligr_jax.nn.linear import Linear
from ligr_jax.nn.mup import HISTORY, mup_scale
from ligr_jax.nn.streams import Streams, View, attend_history, attend_range
from ligr_jax.nn.two_stream import StreamStack, TwoStream, stream_flops
from ligr_jax.nn.work import Work
from ligr_jax.ops.attention import KeyValues, OwnKeys, RelativeBias


class LiGRStreams(TwoStream):
    """LiGR with a history stream and a candidate stream (`model.kind=ligr_streams`)."""

    def make_layers(self) -> nn.Module:
        """Return the stack of gated layers."""
        return StreamStack(self.config, layer=StreamBlock, name=HISTORY)


class StreamBlock(nn.Module):
    """Gated attention, then gated feed-forward, of both streams with the same weights."""

    config: ModelConfig
    scale: float = 1.0

    @nn.compact
    def __call__(
        self,
        streams: Streams,
        view: View,
        past: KeyValues | None,
        deterministic: bool,
        keep: bool,
    ) -> tuple[Streams, KeyValues | None]:
        """Return the streams, and the keys and values of the history tokens, or None.

        Args:
            streams: the residual streams.
            view: what their tokens see.
            past: keys and values of the kept history, [B, S, H, K], or None.
            deterministic: if False, dropout is applied, which needs a `dropout` key.
            keep: whether to return keys and values.
        """
        c = self.config
        attention = StreamAttention(c, name="attention")
        gated = Gated(c, scale=self.scale, name="gated_attention")
        feed_forward = FeedForward(c, name="ffn")
        gated_ffn = Gated(c, scale=self.scale, name="gated_ffn")
        new: KeyValues | None = None
        h_BND, c_BNMD = streams

        def attended_history(x_BND: jax.Array) -> jax.Array:
            nonlocal new
            out_BND, new = attention.history(x_BND, view, past)
            return out_BND

        def attended_candidates(x_BNMD: jax.Array) -> jax.Array:
            return attention.candidates(x_BNMD, new, view, past)

        if h_BND is not None:
            h_BND = gated(h_BND, attended_history, deterministic)
            h_BND = gated_ffn(h_BND, feed_forward, deterministic)
        if c_BNMD is not None:
            c_BNMD = gated(c_BNMD, attended_candidates, deterministic)
            c_BNMD = gated_ffn(c_BNMD, feed_forward, deterministic)
        return Streams(h_BND, c_BNMD), new if keep else None


class StreamAttention(nn.Module):
    """Multi-head attention of both streams, with one set of weights.

    Subclasses may project candidate tokens by other weights, and mask them from each other.
    """

    config: ModelConfig

    def setup(self) -> None:
        c = self.config
        dtype = jnp.dtype(c.dtype)
        self.qkv = Linear(3 * c.width, dtype=dtype, name="qkv")
        self.out = Linear(c.width, dtype=dtype, name="out")
        if c.position.startswith("relative"):
            self.bias = RelativeTable(c, name="relative")

    def history(
        self, x_BND: jax.Array, view: View, past: KeyValues | None
    ) -> tuple[jax.Array, KeyValues]:
        """Return the output of history tokens [B, N, D], and their keys and values.

        Args:
            x_BND: [B, N, D].
            view: what the tokens see.
            past: keys and values of the kept history, or None.
        """
        q_BNHK, new = self._by_head(self.qkv(x_BND))
        out = attend_history(
            self.config, q_BNHK, new, view, past, bias=self._bias(view), window=view.window
        )
        return self.out(out.reshape(x_BND.shape)), new

    def candidates(
        self, x_BNMD: jax.Array, history: KeyValues | None, view: View, past: KeyValues | None
    ) -> jax.Array:
        """Return the output of candidate tokens [B, N, M, D].

        Args:
            x_BNMD: [B, N, M, D].
            history: keys and values of the history tokens of the row; None in serving.
            view: what the tokens see.
            past: keys and values of the kept history, or None.
        """
        q_BNMHK, own = self._by_head(self.project_candidates(x_BNMD))
        out = attend_range(
            self.config,
            q_BNMHK,
            history,
            view,
            past,
            OwnKeys(*own, allowed_MP=self.allowed_own(x_BNMD.shape[2])),
            bias=self._bias(view),
            window=view.window,
        )
        result: jax.Array = self.out(out.reshape(x_BNMD.shape))
        return result

    def project_candidates(self, x_BNMD: jax.Array) -> jax.Array:
        """Return queries, keys and values of candidate tokens, [B, N, M, 3 D]."""
        result: jax.Array = self.qkv(x_BNMD)
        return result

    def allowed_own(self, tokens: int) -> jax.Array:
        """Return which of the M tokens of its impression each token sees, bool [M, M]."""
        return jnp.ones((tokens, tokens), bool)

    def _by_head(self, qkv: jax.Array) -> tuple[jax.Array, KeyValues]:
        c = self.config
        qkv = qkv.reshape(*qkv.shape[:-1], 3, c.heads, -1)
        q, k, v = jnp.moveaxis(qkv, -3, 0)
        return q / mup_scale(c).head_width ** 0.5, KeyValues(k, v)

    def _bias(self, view: View) -> RelativeBias | None:
        return self.bias(view.position) if self.config.position.startswith("relative") else None


class RelativeTable(nn.Module):
    """The relative bias of a layer, which both streams share."""

    config: ModelConfig

    @nn.compact
    def __call__(self, position: jax.Array | None) -> RelativeBias | None:
        """Return the bias of tokens with coordinates [B, N]."""
        return relative_bias(self, self.config, position)


def ligr_streams_flops(config: ModelConfig, work: Work) -> dict[str, float]:
    """Return the forward FLOPs, by part; see `ligr_jax.cost.flops.forward_flops`."""
    d, f, m = config.width, config.ffn_width, config.streams.tokens
    tokens = work.impressions * (1 + m) * config.depth
    return stream_flops(config, work.impressions) | {
        "attention_projections": tokens * 8 * d * d,
        "stream_pairs": 4 * d * work.stream_pairs,
        "range_pairs": 4 * d * m * work.range_pairs,
        "own_pairs": 4 * d * m * m * work.impressions * config.depth,
        "gates": tokens * 4 * d * d * (config.gate == "sigmoid"),
        "ffn": tokens * 2 * {"gelu": 2, "swiglu": 3}[config.ffn] * d * f,
    }
