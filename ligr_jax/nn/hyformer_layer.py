"""The layer of HyFormer: an encoder of the history, decoding by queries, and boosting.

The equations, and what differs from the paper, are in `ligr_jax.nn.hyformer`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.config import ModelConfig
from ligr_jax.nn.blocks import FeedForward
from ligr_jax.nn.ligr_streams import RelativeTable, StreamAttention
from ligr_jax.nn.linear import Linear
from ligr_jax.nn.mup import mup_scale
from ligr_jax.nn.per_token import PerTokenMLP, mix_tokens
from ligr_jax.nn.streams import Streams, View, attend_range
from ligr_jax.ops.attention import KeyValues

_EPSILON = 1e-5  # of the public codes


class LayerKeys(NamedTuple):
    """What a layer keeps of history tokens: keys and values, [B, N, H, K] each.

    encoder: those of the encoder's attention; None for an encoder without attention.
    decoder: those that queries read.
    """

    encoder: KeyValues | None
    decoder: KeyValues


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
