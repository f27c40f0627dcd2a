"""TokenMixer-Large: mix, transform, revert, transform (arXiv:2602.06563).

The M tokens of an impression are a global token, which is a projection of all item features, the
feature tokens, and the history token (`ligr_jax.nn.history_token`).

    Y  = X + Mix(P1(Mix(norm X)))                      Mix is its own inverse
    X' = Y + P2(norm Y)                                reading=residual
    X' = X + P2(norm Y)                                reading=revert
    P_t(x) = (silu(x U_t + b_t) * (x V_t + c_t)) W_t + d_t,   U, V [D, F], W [F, D]
    X^l <- X^l + X^(l-s) / l                           at layers s, 2s, .., except the last

The norm is RMSNorm, W starts at 0.01 of the usual deviation, and with `model.tokenmixer.experts` a
P_t is a sum of sparse experts (`ligr_jax.nn.per_token_experts`). The training loss includes the
cross-entropy of heads that read X^l at the same layers.

- The paper's figure and its equation differ in what P2 is added to: the two values of
  `model.tokenmixer.reading`. The equation has norms after the sums; here they are before the
  transforms, as in the public code of UniRank, so that muP holds in depth. In `revert`, P1 reaches
  the residual stream through P2 only, and is not divided by the depth ratio l of muP.
- Since the transforms read a norm, X^l + X^(l-s) weighs the layers between them half as much as
  those before, in place of a shortcut around them. The sum doubles the stream, so with muP it is
  divided by l, like every branch.
- The weight of the auxiliary loss is not published (0.1 here), nor the layers that have heads.
- UniRank has LayerNorm, GELU in place of SiLU, no bias b of W, no residuals between layers, no
  auxiliary loss, no small start and no global token.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.config import ModelConfig
from ligr_jax.data.batch import Batch
from ligr_jax.nn.experts import LOSSES
from ligr_jax.nn.head_inputs import head_inputs
from ligr_jax.nn.heads import Heads
from ligr_jax.nn.history_token import (
    HistoryToken,
    HistoryTokenModel,
    history_token_model_flops,
)
from ligr_jax.nn.mup import HISTORY, mup_scale
from ligr_jax.nn.per_token import Nonlinearity, PerTokenGLU, mix_tokens
from ligr_jax.nn.per_token_experts import PerTokenExperts, per_token_experts_flops
from ligr_jax.nn.streams import Streams, View
from ligr_jax.nn.work import Work
from ligr_jax.ops.losses import binary_cross_entropy


class TokenMixer(HistoryTokenModel):
    """TokenMixer-Large (`model.kind=tokenmixer`)."""

    def setup(self) -> None:
        super().setup()
        c = self.config
        count = len(middle_layers(c)) if c.tokenmixer.auxiliary_weight else 0
        self.middle_heads = [Heads(c, name=f"middle_heads_{i}") for i in range(count)]

    def make_layers(self) -> nn.Module:
        """Return target attention and the stack of layers."""
        return TokenMixerLayers(self.config, name=HISTORY)

    def __call__(self, batch: Batch, deterministic: bool = True) -> jax.Array:
        """Return logits, float32 [B, N, A], and in training sow the auxiliary loss.

        Args:
            batch: B rows of N impressions.
            deterministic: if False, dropout is applied, which needs a `dropout` key.
        """
        if deterministic and not self.is_initializing():
            return super().__call__(batch, deterministic)
        embedded = self.tables(batch.ids)
        streams = self._both_streams(batch, embedded, deterministic)
        streams, middle = self.layers.with_middle(streams, self._row(batch), deterministic)
        inputs = head_inputs(self.config, batch, embedded)
        for heads, x_BNMD in zip(self.middle_heads, middle, strict=False):
            logits_BNA = heads(x_BNMD.mean(2), deterministic, inputs)
            loss, weight = binary_cross_entropy(logits_BNA, batch.labels, batch.weight)
            mean = (loss / jnp.maximum(weight, 1e-9)).sum()
            self.sow(LOSSES, "auxiliary_loss", self.config.tokenmixer.auxiliary_weight * mean)
        return self._logits(streams, batch, embedded, deterministic)


class TokenMixerLayers(nn.Module):
    """The history token, then the layers over candidate tokens."""

    config: ModelConfig

    def setup(self) -> None:
        self.history_token = HistoryToken(self.config)
        self.stack = TokenMixerStack(self.config)

    def __call__(
        self, streams: Streams, view: View, past: Any, deterministic: bool, keep: bool
    ) -> tuple[Streams, Any]:
        """Return the streams, and what the layers keep; see `ligr_jax.nn.two_stream`."""
        streams, kept = self.history_token(streams, view, past, keep)
        if streams.candidates_BNMD is not None:
            c_BNMD, _ = self.stack(streams.candidates_BNMD, deterministic)
            streams = streams._replace(candidates_BNMD=c_BNMD)
        return streams, kept

    def with_middle(
        self, streams: Streams, view: View, deterministic: bool
    ) -> tuple[Streams, list[jax.Array]]:
        """Return the streams, and the candidate tokens [B, N, M, D] after `middle_layers`."""
        streams, _ = self.history_token(streams, view, None, False)
        assert streams.candidates_BNMD is not None
        c_BNMD, outputs_LBNMD = self.stack(streams.candidates_BNMD, deterministic)
        middle = [outputs_LBNMD[layer - 1] for layer in middle_layers(self.config)]
        return streams._replace(candidates_BNMD=c_BNMD), middle


class TokenMixerStack(nn.Module):
    """`depth` layers with stacked parameters, [depth, ..], and residuals between layers."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BNMD: jax.Array, deterministic: bool) -> tuple[jax.Array, jax.Array]:
        """Return the output of the last layer [B, N, M, D], and that of all, [L, B, N, M, D]."""
        c = self.config
        unrolled = c.unroll == "yes" or (c.unroll == "auto" and jax.default_backend() == "cpu")
        layer: type[nn.Module] = _ConnectedLayer
        if c.remat:
            layer = nn.remat(layer, prevent_cse=unrolled, static_argnums=(3,))
        layers = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast),
            length=c.depth,
            unroll=c.depth if unrolled else 1,
        )(c, name="layers")
        connected = jnp.isin(jnp.arange(1, c.depth + 1), jnp.asarray(middle_layers(c)))
        (x_BNMD, _), outputs_LBNMD = layers((x_BNMD, x_BNMD), connected, deterministic)
        return x_BNMD, outputs_LBNMD


class _ConnectedLayer(nn.Module):
    """A layer that adds an earlier output if `connected`, and then hands on the sum."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, carry: tuple[jax.Array, jax.Array], connected: jax.Array, deterministic: bool
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        x_BNMD, earlier_BNMD = carry
        scale = 1 / mup_scale(self.config).depth
        x_BNMD = TokenMixerLayer(self.config, scale=scale, name="layer")(x_BNMD, deterministic)
        x_BNMD = jnp.where(connected, x_BNMD + scale * earlier_BNMD, x_BNMD)
        return (x_BNMD, jnp.where(connected, x_BNMD, earlier_BNMD)), x_BNMD


class TokenMixerLayer(nn.Module):
    """Mix, transform, revert, transform; `scale` multiplies what is added to the stream."""

    config: ModelConfig
    scale: float = 1.0
    activation: Nonlinearity = nn.silu
    norm: type[nn.Module] = nn.RMSNorm
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x_BNMD: jax.Array, deterministic: bool) -> jax.Array:
        """Return candidate tokens [B, N, M, D].

        Args:
            x_BNMD: [B, N, M, D].
            deterministic: if False, dropout is applied, which needs a `dropout` key.
        """
        c = self.config
        dropout = nn.Dropout(c.dropout, deterministic=deterministic)

        def normalized(name: str, x: jax.Array) -> jax.Array:
            norm = self.norm(epsilon=self.epsilon, dtype=jnp.dtype(c.dtype), name=name)
            y: jax.Array = norm(x)
            return y

        mixed = Transform(c, self.activation, name="mixed")
        token = Transform(c, self.activation, name="token")
        residual = c.tokenmixer.reading == "residual"
        reverted = mix_tokens(mixed(mix_tokens(normalized("mix_norm", x_BNMD))))
        y_BNMD = x_BNMD + (self.scale if residual else 1.0) * dropout(reverted)
        out_BNMD: jax.Array = dropout(token(normalized("token_norm", y_BNMD)))
        return (y_BNMD if residual else x_BNMD) + self.scale * out_BNMD


class Transform(nn.Module):
    """A gated network per token, or sparse experts per token."""

    config: ModelConfig
    activation: Nonlinearity = nn.silu

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return [..., M, D], for x [..., M, D]."""
        c = self.config
        if c.tokenmixer.experts > 1:
            return PerTokenExperts(c, name="per_token")(x)
        network = PerTokenGLU(
            c.ffn_width,
            activation=self.activation,
            down_init=c.tokenmixer.down_init,
            dtype=jnp.dtype(c.dtype),
            name="per_token",
        )
        return network(x)


def middle_layers(config: ModelConfig) -> list[int]:
    """Return the layers, counted from 1, to which an earlier output is added."""
    s = config.tokenmixer.residual_interval
    return list(range(s, config.depth, s)) if s else []


def tokenmixer_flops(config: ModelConfig, work: Work) -> dict[str, float]:
    """Return the forward FLOPs, by part; see `ligr_jax.cost.flops.forward_flops`.

    Heads of the auxiliary loss, which only training computes, are not counted.
    """
    transform = 6 * config.width * config.ffn_width
    if config.tokenmixer.experts > 1:
        transform = per_token_experts_flops(config)
    tokens = work.impressions * config.streams.tokens * config.depth
    return history_token_model_flops(config, work) | {"ffn": 2 * tokens * transform}
