"""RankMixer: token mixing without parameters, and a feed-forward layer per token.

Zhu et al. 2025, arXiv:2507.15551, section 3. The M tokens of an impression are M - 1 feature tokens
and one history token (`ligr_jax.nn.history_token`).

    Mix(X)     X as M x M blocks of width D / M, transposed
    pre        X <- X + Mix(LN(X));         X_t <- X_t + FFN_t(LN(X_t))
    post       X <- LN(X + Mix(X));         X_t <- LN(X_t + FFN_t(X_t))
    FFN_t(x) = GELU(x U_t + b_t) V_t + d_t,   U_t [D, F], V_t [F, D]

- `model.rankmixer.norm=post` is the published form, `pre` the default, as in the public code of
  UniRank. X + Mix(X) has rank D (M + 1) / 2, so the published first sub-layer discards almost half
  of the residual stream in every layer. A norm after the sum undoes the factor 1 / l of muP, so
  depth transfers only with `pre`.
- M must divide D. UniRank pads D instead, and then mixes pieces across heads.
- GELU is the tanh approximation, as in the other kinds; UniRank's is exact.
- The paper does not give the form of the history token; here it is target attention, as in UniRank.
  Not built: the sparse experts with ReLU routing, which train dense and serve sparse.
  `model.kind=tokenmixer` has experts.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.config import ModelConfig
from ligr_jax.nn.history_token import (
    HistoryToken,
    HistoryTokenModel,
    history_token_model_flops,
)
from ligr_jax.nn.mup import HISTORY
from ligr_jax.nn.per_token import Nonlinearity, PerTokenMLP, mix_tokens
from ligr_jax.nn.streams import Streams, View
from ligr_jax.nn.two_stream import StreamStack
from ligr_jax.nn.work import Work

_EPSILON = 1e-5  # of the public codes


class RankMixer(HistoryTokenModel):
    """RankMixer (`model.kind=rankmixer`)."""

    def make_layers(self) -> nn.Module:
        """Return target attention and the stack of layers."""
        return RankMixerLayers(self.config, name=HISTORY)


class RankMixerLayers(nn.Module):
    """The history token, then the layers over candidate tokens."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, streams: Streams, view: View, past: Any, deterministic: bool, keep: bool
    ) -> tuple[Streams, Any]:
        """Return the streams, and what the layers keep; see `ligr_jax.nn.two_stream`."""
        streams, kept = HistoryToken(self.config, name="history_token")(streams, view, past, keep)
        if streams.candidates_BNMD is not None:
            stack = StreamStack(self.config, layer=RankMixerLayer, name="stack")
            streams, _ = stack(streams, view, None, deterministic, False)
        return streams, kept


class RankMixerLayer(nn.Module):
    """Token mixing, then a feed-forward layer per token, each with a residual connection."""

    config: ModelConfig
    scale: float = 1.0
    activation: Nonlinearity = nn.gelu

    @nn.compact
    def __call__(
        self, streams: Streams, view: View, past: None, deterministic: bool, keep: bool
    ) -> tuple[Streams, None]:
        """Return the streams with new candidate tokens; see `ligr_jax.nn.two_stream`."""
        c = self.config
        dtype = jnp.dtype(c.dtype)
        dropout = nn.Dropout(c.dropout, deterministic=deterministic)
        feed_forward = PerTokenMLP(
            c.ffn_width, activation=self.activation, dtype=dtype, name="per_token"
        )
        x_BNMD = streams.candidates_BNMD
        assert x_BNMD is not None
        for name, branch in (("mix_norm", mix_tokens), ("ffn_norm", feed_forward)):
            norm = nn.LayerNorm(epsilon=_EPSILON, dtype=dtype, name=name)
            if c.rankmixer.norm == "pre":
                x_BNMD += self.scale * dropout(branch(norm(x_BNMD)))
            else:
                x_BNMD = norm(x_BNMD + self.scale * dropout(branch(x_BNMD)))
        return Streams(streams.history_BND, x_BNMD), None


def rankmixer_flops(config: ModelConfig, work: Work) -> dict[str, float]:
    """Return the forward FLOPs, by part; see `ligr_jax.cost.flops.forward_flops`."""
    tokens = work.impressions * config.streams.tokens * config.depth
    ffn = tokens * 4 * config.width * config.ffn_width
    return history_token_model_flops(config, work) | {"ffn": ffn}
