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

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.config import ModelConfig
from ligr_jax.nn.history import running_sums
from ligr_jax.nn.hyformer_layer import HyFormerLayer, LayerKeys
from ligr_jax.nn.linear import Linear
from ligr_jax.nn.mup import HISTORY
from ligr_jax.nn.streams import Streams, View
from ligr_jax.nn.two_stream import StreamStack, TwoStream, stream_flops
from ligr_jax.nn.work import Work


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
