"""OneTrans: one transformer over history and candidate tokens (arXiv:2510.26104).

    X = [h ; c_i]                                    N history tokens, M candidate tokens
    X <- X + Attn(norm X) W_o                        q, k, v of h by shared weights,
                                                     of c_im by weights of token m
    X <- X + act(norm X U) V                         U [D, F], V [F, D]: shared for h, W_m for c_im

h_j sees the member's history up to j; c_im sees the history of earlier sessions, and c_i1 .. c_im
(the paper's causal mask). The norm is RMSNorm.

From the paper: the mixed parametrization, the mask, the norm, F = 4 D, the split of all features
into tokens (`tokenizer=auto`). It leaves open the following. W_o is shared, as in the public codes
of UniRank and TAAC. The activation is SiLU as in TAAC, or ReLU as in UniRank
(`model.onetrans.activation`). There are no biases, and the logits are read from the mean of the
candidate tokens.

The pyramid: in the paper, each layer keeps the newest history tokens of the request, fewer in
higher layers. Here a window slides with the token, so that one pass over a row is exact: in layer l
h_j sees its newest w_l tokens, and c_i the newest w_l of earlier sessions (`streams.windows`). A
candidate token reads the same tokens as in the paper, and these read windows of their own.
`streams.history=recompute` is the paper's cut, at the cost of one pass per impression: layer l has
the newest w_l tokens before the session (`ligr_jax.nn.recompute`). The default is no pyramid, which
the paper measures as equally good at three times the FLOPs.

The public codes differ: in UniRank, padding takes part as zero vectors, the norm is LayerNorm, and
the queries that the pyramid drops are computed. TAAC has biases.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.config import ModelConfig
from ligr_jax.nn.ligr_streams import StreamAttention
from ligr_jax.nn.linear import Linear
from ligr_jax.nn.mup import HISTORY
from ligr_jax.nn.per_token import PerTokenLinear, PerTokenMLP
from ligr_jax.nn.streams import Streams, View
from ligr_jax.nn.two_stream import StreamStack, TwoStream, stream_flops
from ligr_jax.nn.work import Work
from ligr_jax.ops.attention import KeyValues

_ACTIVATIONS = {"silu": nn.silu, "relu": nn.relu}


class OneTrans(TwoStream):
    """A transformer whose candidate tokens have weights of their own (`model.kind=onetrans`)."""

    def make_layers(self) -> nn.Module:
        """Return the stack of layers."""
        return StreamStack(self.config, layer=OneTransLayer, name=HISTORY)


class OneTransLayer(nn.Module):
    """Pre-norm attention, then pre-norm feed-forward, of both streams."""

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
        dtype = jnp.dtype(c.dtype)
        attention_norm = nn.RMSNorm(dtype=dtype, name="attention_norm")
        ffn_norm = nn.RMSNorm(dtype=dtype, name="ffn_norm")
        attention = MixedAttention(c, name="attention")
        feed_forward = MixedFeedForward(c, name="ffn")
        dropout = nn.Dropout(c.dropout, deterministic=deterministic)
        new: KeyValues | None = None
        h_BND, c_BNMD = streams

        if h_BND is not None:
            out_BND, new = attention.history(attention_norm(h_BND), view, past)
            h_BND += self.scale * dropout(out_BND)
            h_BND += self.scale * dropout(feed_forward.history(ffn_norm(h_BND)))
        if c_BNMD is not None:
            out_BNMD = attention.candidates(attention_norm(c_BNMD), new, view, past)
            c_BNMD += self.scale * dropout(out_BNMD)
            c_BNMD += self.scale * dropout(feed_forward.candidates(ffn_norm(c_BNMD)))
        return Streams(h_BND, c_BNMD), new if keep else None


class MixedAttention(StreamAttention):
    """Attention in which every candidate token has its own weights of queries, keys and values."""

    def setup(self) -> None:
        super().setup()
        self.per_token = PerTokenLinear(3 * self.config.width, dtype=jnp.dtype(self.config.dtype))

    def project_candidates(self, x_BNMD: jax.Array) -> jax.Array:
        """Return queries, keys and values of candidate tokens, [B, N, M, 3 D]."""
        result: jax.Array = self.per_token(x_BNMD)
        return result

    def allowed_own(self, tokens: int) -> jax.Array:
        """Return the causal mask of the tokens of an impression, bool [M, M]."""
        return jnp.tril(jnp.ones((tokens, tokens), bool))


class MixedFeedForward(nn.Module):
    """D -> F -> D, with shared weights for the history and own weights per candidate token."""

    config: ModelConfig

    def setup(self) -> None:
        c = self.config
        dtype = jnp.dtype(c.dtype)
        self.up = Linear(c.ffn_width, dtype=dtype)
        self.down = Linear(c.width, dtype=dtype)
        self.activation = _ACTIVATIONS[c.onetrans.activation]
        self.per_token = PerTokenMLP(
            c.ffn_width, activation=self.activation, use_bias=False, dtype=dtype
        )

    def history(self, x_BND: jax.Array) -> jax.Array:
        """Return the output of history tokens, [B, N, D]."""
        result: jax.Array = self.down(self.activation(self.up(x_BND)))
        return result

    def candidates(self, x_BNMD: jax.Array) -> jax.Array:
        """Return the output of candidate tokens, [B, N, M, D]."""
        result: jax.Array = self.per_token(x_BNMD)
        return result


def onetrans_flops(config: ModelConfig, work: Work) -> dict[str, float]:
    """Return the forward FLOPs, by part; see `ligr_jax.cost.flops.forward_flops`.

    Of the M x M pairs of candidate tokens of an impression, the M (M + 1) / 2 that the causal mask
    allows are counted.
    """
    d, f, m = config.width, config.ffn_width, config.streams.tokens
    history_tokens = work.impressions * config.depth
    if config.streams.history == "recompute":
        history_tokens = work.range_pairs  # a history for each impression
    tokens = history_tokens + work.impressions * m * config.depth
    return stream_flops(config, work.impressions) | {
        "attention_projections": tokens * 8 * d * d,
        "stream_pairs": 4 * d * work.stream_pairs,
        "range_pairs": 4 * d * m * work.range_pairs,
        "own_pairs": 2 * d * m * (m + 1) * work.impressions * config.depth,
        "ffn": tokens * 4 * d * f,
    }
