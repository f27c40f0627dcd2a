"""HyFormer: queries decode the history, then mix with candidate tokens (arXiv:2601.12681).

    q_i [G, D] = [c_i1 ; .. ; c_iM ; mean of h over the range] W + b          once, before layer 1

    h  <- Enc(h)                                                              in every layer
    q~ =  q + Attn(LN q; keys and values of LN h over the range) W_o          decoding
    X  =  [q~ ; c_i]                                                          G + M tokens
    X  <- X + Mix(LN X);  X <- X + FFN_t(LN X);  (q, c_i) = split X           boosting

The range of an impression is the history of earlier sessions; if it is empty, the mean and the
output of attention are zero. Mix transposes (G + M) x (G + M) pieces, and FFN_t has weights of its
own for each token (`ligr_jax.nn.per_token`). The logits are read from the mean of the G queries, as
in UniRank.

`model.hyformer.encoder=causal` is a pre-norm transformer layer under the causal mask, and `swiglu`
is the paper's cheap encoder, h + SwiGLU(LN h). The paper's full transformer is bidirectional: its
encoding of a token depends on what follows, so it would need a pass per session.

`model.hyformer.boost=paper` is X + FFN_t(Mix X) as printed. The default has the two norms and
residuals of UniRank, which are those of RankMixer. TAAC shares FFN_t between tokens. In the paper's
formula it remains open whether candidate tokens enter each layer as they left the layer before, or
as they entered the first; they pass on, as in both public codes.

Our choices: the generator is one linear map, where the paper has a feed-forward network. The
feed-forward width is F = `ffn_factor` D in the encoder and in FFN_t. There is one sequence: the
paper's queries per kind of behavior are not built.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.config import ModelConfig
from ligr_jax.nn.blocks import FeedForward
from ligr_jax.nn.history import running_sums
from ligr_jax.nn.ligr_streams import RelativeTable, StreamAttention
from ligr_jax.nn.linear import Linear
from ligr_jax.nn.mup import HISTORY, mup_scale
from ligr_jax.nn.per_token import PerTokenMLP, mix_tokens
from ligr_jax.nn.streams import Streams, View, attend_range
from ligr_jax.nn.two_stream import StreamStack, TwoStream, stream_flops
from ligr_jax.nn.work import Work
from ligr_jax.ops.attention import KeyValues

_EPSILON = 1e-5  # of the public codes


class LayerKeys(NamedTuple):
    """What a layer keeps of history tokens: keys and values, [B, N, H, K] each.

    encoder: those of the encoder's attention; None for an encoder without attention.
    decoder: those that queries read.
    """

    encoder: KeyValues | None
    decoder: KeyValues


class HyFormerHistory(NamedTuple):
    """What the model keeps of history tokens.

    inputs_1BND: [1, B, N, D], the input of the first layer, whose mean the query generator reads.
    layers: what the layers keep, with a first axis L.
    """

    inputs_1BND: jax.Array
    layers: LayerKeys


class HyFormer(TwoStream):
    """HyFormer (`model.kind=hyformer`)."""

    def make_layers(self) -> nn.Module:
        """Return the query generator and the stack of layers."""
        return HyFormerLayers(self.config, name=HISTORY)


class HyFormerLayers(nn.Module):
    """The query generator, then the layers over G queries and M candidate tokens."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        streams: Streams,
        view: View,
        past: HyFormerHistory | None,
        deterministic: bool,
        keep: bool,
    ) -> tuple[Streams, HyFormerHistory | None]:
        """Return the streams, with the queries as candidate tokens, and what later passes need.

        Args:
            streams: the tokens.
            view: what they see.
            past: what was kept of the history, or None.
            deterministic: if False, dropout is applied, which needs a `dropout` key.
            keep: whether to return what later passes need.
        """
        c = self.config
        g = c.streams.queries
        h_BND, c_BNMD = streams
        if c_BNMD is not None:
            b, n, _, d = c_BNMD.shape
            dtype = jnp.dtype(c.dtype)
            mean_BND = jnp.broadcast_to(range_mean(h_BND, view, past).astype(dtype), (b, n, d))
            known_BNW = jnp.concatenate([c_BNMD.reshape(b, n, -1), mean_BND], axis=-1)
            generator = Linear(g * d, use_bias=True, dtype=dtype, name="generator")
            q_BNGD = generator(known_BNW).reshape(b, n, g, d)
            streams = Streams(h_BND, jnp.concatenate([q_BNGD, c_BNMD], axis=2))
        stack = StreamStack(c, layer=HyFormerLayer, name="stack")
        of_layers = None if past is None else past.layers
        streams, new = stack(streams, view, of_layers, deterministic, keep)
        if streams.candidates_BNMD is not None:
            streams = streams._replace(candidates_BNMD=streams.candidates_BNMD[:, :, :g])
        if not keep or h_BND is None:
            return streams, None
        return streams, HyFormerHistory(inputs_1BND=h_BND[None], layers=new)


def range_mean(h_BND: jax.Array | None, view: View, past: HyFormerHistory | None) -> jax.Array:
    """Return the mean of history tokens over the range of each impression.

    Args:
        h_BND: [B, N, D], history tokens of the row; None in serving.
        view: gives the ranges, all of which start at the member's first impression.
        past: the kept history; None in training.

    Returns:
        float32 [B, N, D], or [B, 1, D] if all candidates see the same kept history; zero for an
        empty range.
    """
    if h_BND is not None:
        assert view.history is not None
        assert view.ranges is not None
        restarts_BN = view.history.lo == jnp.arange(h_BND.shape[1])
        running_BND = running_sums(h_BND.astype(jnp.float32), restarts_BN)
        last_BN = jnp.maximum(view.ranges.hi - 1, 0)
        sums_BND = jnp.take_along_axis(running_BND, last_BN[..., None], axis=1)
        count_BN = view.ranges.hi - view.ranges.lo
    else:
        assert view.past is not None
        assert past is not None
        count_BN = view.past.end
        kept_BSD = past.inputs_1BND[0].astype(jnp.float32)
        seen_BNS = jnp.arange(kept_BSD.shape[1]) < count_BN[..., None]
        # Not running sums: an exported program has no scan over an axis of variable size.
        highest = jax.lax.Precision.HIGHEST
        sums_BND = jnp.matmul(seen_BNS.astype(jnp.float32), kept_BSD, precision=highest)
    mean_BND = sums_BND / jnp.maximum(count_BN, 1)[..., None]
    return jnp.where(count_BN[..., None] > 0, mean_BND, 0.0)


class HyFormerLayer(nn.Module):
    """The encoder of the history, decoding by queries, and boosting."""

    config: ModelConfig
    scale: float = 1.0

    @nn.compact
    def __call__(
        self,
        streams: Streams,
        view: View,
        past: LayerKeys | None,
        deterministic: bool,
        keep: bool,
    ) -> tuple[Streams, LayerKeys | None]:
        """Return the streams, and the keys and values of the history tokens, or None.

        Args:
            streams: history tokens, and queries followed by candidate tokens, [B, N, G + M, D].
            view: what they see.
            past: keys and values of the kept history, [B, S, H, K], or None.
            deterministic: if False, dropout is applied, which needs a `dropout` key.
            keep: whether to return keys and values.
        """
        c = self.config
        g = c.streams.queries
        encoder = ENCODERS[c.hyformer.encoder](c, scale=self.scale, name="encoder")
        decoder = QueryDecoder(c, name="decoder")
        boost = BOOSTS[c.hyformer.boost](c, scale=self.scale, name="boost")
        dropout = nn.Dropout(c.dropout, deterministic=deterministic)
        new: LayerKeys | None = None
        h_BND, x_BNMD = streams

        if h_BND is not None:
            of_encoder = None if past is None else past.encoder
            h_BND, encoder_keys = encoder(h_BND, view, of_encoder, deterministic)
            new = LayerKeys(encoder=encoder_keys, decoder=decoder.keys_of(h_BND))
        if x_BNMD is not None:
            q_BNGD, c_BNMD = x_BNMD[:, :, :g], x_BNMD[:, :, g:]
            of_row = None if new is None else new.decoder
            of_past = None if past is None else past.decoder
            q_BNGD += self.scale * dropout(decoder(q_BNGD, of_row, view, of_past))
            x_BNMD = boost(jnp.concatenate([q_BNGD, c_BNMD], axis=2), deterministic)
        return Streams(h_BND, x_BNMD), new if keep else None


class CausalEncoder(nn.Module):
    """A pre-norm transformer layer under the mask of the history."""

    config: ModelConfig
    scale: float = 1.0

    @nn.compact
    def __call__(
        self, h_BND: jax.Array, view: View, past: KeyValues | None, deterministic: bool
    ) -> tuple[jax.Array, KeyValues | None]:
        """Return history tokens [B, N, D], and their keys and values.

        Args:
            h_BND: [B, N, D].
            view: what the tokens see.
            past: keys and values of the kept history, or None.
            deterministic: if False, dropout is applied.
        """
        c = self.config
        dropout = nn.Dropout(c.dropout, deterministic=deterministic)
        attention = StreamAttention(c, name="attention")
        out_BND, new = attention.history(_norm(c, "attention_norm")(h_BND), view, past)
        h_BND += self.scale * dropout(out_BND)
        out_BND = FeedForward(c, name="ffn")(_norm(c, "ffn_norm")(h_BND))
        return h_BND + self.scale * dropout(out_BND), new


class SwiGLUEncoder(nn.Module):
    """A pre-norm gated feed-forward layer, (silu(x U) * x V) W; tokens do not see each other."""

    config: ModelConfig
    scale: float = 1.0

    @nn.compact
    def __call__(
        self, h_BND: jax.Array, view: View, past: KeyValues | None, deterministic: bool
    ) -> tuple[jax.Array, KeyValues | None]:
        """Return history tokens [B, N, D], and None; arguments as in `CausalEncoder`."""
        c = self.config
        dtype = jnp.dtype(c.dtype)
        x_BND = _norm(c, "ffn_norm")(h_BND)
        gate_BNF = nn.silu(Linear(c.ffn_width, dtype=dtype, name="up")(x_BND))
        value_BNF = Linear(c.ffn_width, dtype=dtype, name="value")(x_BND)
        out_BND = Linear(c.width, dtype=dtype, name="down")(gate_BNF * value_BNF)
        out_BND = nn.Dropout(c.dropout)(out_BND, deterministic=deterministic)
        return h_BND + self.scale * out_BND, None


class QueryDecoder(nn.Module):
    """Multi-head attention from the queries of an impression to the encoded history."""

    config: ModelConfig

    def setup(self) -> None:
        c = self.config
        dtype = jnp.dtype(c.dtype)
        self.query_norm = _norm(c)
        self.history_norm = _norm(c)
        self.query = Linear(c.width, dtype=dtype)
        self.key_value = Linear(2 * c.width, dtype=dtype)
        self.out = Linear(c.width, dtype=dtype)
        if c.position.startswith("relative"):
            self.relative = RelativeTable(c)

    def keys_of(self, h_BND: jax.Array) -> KeyValues:
        """Return keys and values of encoded history tokens [B, N, D]."""
        kv_BNW = self.key_value(self.history_norm(h_BND))
        kv = kv_BNW.reshape(*h_BND.shape[:2], 2, self.config.heads, -1)
        return KeyValues(*jnp.moveaxis(kv, 2, 0))

    def __call__(
        self, q_BNGD: jax.Array, history: KeyValues | None, view: View, past: KeyValues | None
    ) -> jax.Array:
        """Return what the queries read, [B, N, G, D].

        Args:
            q_BNGD: [B, N, G, D], queries.
            history: keys and values of the history tokens of the row; None in serving.
            view: what the queries see.
            past: keys and values of the kept history, or None.
        """
        c = self.config
        q_BNGHK = self.query(self.query_norm(q_BNGD)).reshape(*q_BNGD.shape[:3], c.heads, -1)
        q_BNGHK /= mup_scale(c).head_width ** 0.5
        bias = self.relative(view.position) if c.position.startswith("relative") else None
        out = attend_range(c, q_BNGHK, history, view, past, bias=bias)
        result: jax.Array = self.out(out.reshape(q_BNGD.shape))
        return result


class RankMixerBoost(nn.Module):
    """x + Mix(LN x), then x + FFN_t(LN x), over the G + M tokens of an impression."""

    config: ModelConfig
    scale: float = 1.0

    @nn.compact
    def __call__(self, x_BNMD: jax.Array, deterministic: bool) -> jax.Array:
        """Return tokens [B, N, G + M, D]."""
        c = self.config
        dropout = nn.Dropout(c.dropout, deterministic=deterministic)
        x_BNMD += self.scale * dropout(mix_tokens(_norm(c, "mix_norm")(x_BNMD)))
        ffn = PerTokenMLP(c.ffn_width, dtype=jnp.dtype(c.dtype), name="per_token")
        result: jax.Array = x_BNMD + self.scale * dropout(ffn(_norm(c, "ffn_norm")(x_BNMD)))
        return result


class PaperBoost(nn.Module):
    """x + FFN_t(Mix x), over the G + M tokens of an impression."""

    config: ModelConfig
    scale: float = 1.0

    @nn.compact
    def __call__(self, x_BNMD: jax.Array, deterministic: bool) -> jax.Array:
        """Return tokens [B, N, G + M, D]."""
        c = self.config
        ffn = PerTokenMLP(c.ffn_width, dtype=jnp.dtype(c.dtype), name="per_token")
        out_BNMD = nn.Dropout(c.dropout)(ffn(mix_tokens(x_BNMD)), deterministic=deterministic)
        result: jax.Array = x_BNMD + self.scale * out_BNMD
        return result


ENCODERS: dict[str, Callable[..., nn.Module]] = {"causal": CausalEncoder, "swiglu": SwiGLUEncoder}
BOOSTS: dict[str, Callable[..., nn.Module]] = {"rankmixer": RankMixerBoost, "paper": PaperBoost}


def _norm(config: ModelConfig, name: str | None = None) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=_EPSILON, dtype=jnp.dtype(config.dtype), name=name)


def hyformer_flops(config: ModelConfig, work: Work) -> dict[str, float]:
    """Return the forward FLOPs, by part; see `ligr_jax.cost.flops.forward_flops`."""
    d, f = config.width, config.ffn_width
    m, g = config.streams.tokens, config.streams.queries
    layers = work.impressions * config.depth
    causal = config.hyformer.encoder == "causal"
    return stream_flops(config, work.impressions) | {
        "generator": work.impressions * 2 * (m + 1) * g * d * d,
        "attention_projections": layers * (8 * causal + 4 + 4 * g) * d * d,
        "stream_pairs": 4 * d * work.stream_pairs * causal,
        "range_pairs": 4 * d * g * work.range_pairs,
        "ffn": layers * (2 * (2 if causal else 3) + 4 * (g + m)) * d * f,
    }
