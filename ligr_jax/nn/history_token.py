"""Models that read the history once, into one token: target attention, then layers over M tokens.

    z_i = softmax(q_i k_j / K^1/2) v_j W_o,  q_i = x_i W_q,  k_j, v_j = h_j W_k, h_j W_v

The item token x_i of an impression attends to the history tokens h_j = x_j + a_j of earlier
sessions. Its output is the last of the M candidate tokens; it is zero for an empty history. The
layers that follow work on the candidate tokens of each impression alone, so the history has no
layers, and serving keeps one key and one value per impression.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.config import ModelConfig
from ligr_jax.data.batch import Batch
from ligr_jax.nn.features import Embedded
from ligr_jax.nn.ligr_streams import RelativeTable
from ligr_jax.nn.linear import Linear
from ligr_jax.nn.mup import TARGET_ATTENTION, mup_scale
from ligr_jax.nn.streams import Streams, View, attend_range, view_of_row
from ligr_jax.nn.two_stream import TwoStream, stream_flops
from ligr_jax.nn.work import Work
from ligr_jax.ops.attention import KeyValues
from ligr_jax.ops.masks import allowed_pairs


class HistoryTokenModel(TwoStream):
    """A two-stream model whose last candidate token is the item token, until `HistoryToken`."""

    def _both_streams(self, batch: Batch, embedded: Embedded, deterministic: bool) -> Streams:
        items_BND = self.item_tokens(batch, embedded)
        h_BND = items_BND + self.action_tokens(batch, embedded)
        c_BNMD = self._with_item(batch, embedded, items_BND)
        return Streams(
            history_BND=self._stream_input(h_BND, batch, deterministic),
            candidates_BNMD=self._stream_input(c_BNMD, batch, deterministic),
        )

    def _candidate_stream(self, batch: Batch, embedded: Embedded, deterministic: bool) -> jax.Array:
        items_BND = self.item_tokens(batch, embedded)
        c_BNMD = self._with_item(batch, embedded, items_BND)
        return self._stream_input(c_BNMD, batch, deterministic)

    def _with_item(self, batch: Batch, embedded: Embedded, items_BND: jax.Array) -> jax.Array:
        """Return the feature tokens, then the item token, [B, N, M, D]."""
        tokens_BNmD = self.candidate_tokens(batch, embedded)
        return jnp.concatenate([tokens_BNmD, items_BND[:, :, None]], axis=2)


class HistoryToken(nn.Module):
    """Replaces the last candidate token by what it reads from the history."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, streams: Streams, view: View, past: KeyValues | None, keep: bool
    ) -> tuple[Streams, KeyValues | None]:
        """Return the streams, and the keys and values of the history tokens, or None.

        Args:
            streams: the residual streams.
            view: what the tokens see.
            past: keys and values of the kept history, [1, B, S, H, K], or None.
            keep: whether to return keys and values, [1, B, N, H, K].
        """
        attention = TargetAttention(self.config, name=TARGET_ATTENTION)
        h_BND, c_BNMD = streams
        new = None if h_BND is None else attention.keys_of(h_BND)
        if c_BNMD is not None:
            of_layer = None if past is None else KeyValues(*(x[0] for x in past))
            z_BND = attention(c_BNMD[:, :, -1], new, view, of_layer)
            c_BNMD = jnp.concatenate([c_BNMD[:, :, :-1], z_BND[:, :, None]], axis=2)
        kept = KeyValues(*(x[None] for x in new)) if keep and new is not None else None
        return Streams(h_BND, c_BNMD), kept


class TargetAttention(nn.Module):
    """Multi-head attention from one token of each impression to a range of the history."""

    config: ModelConfig

    def setup(self) -> None:
        c = self.config
        dtype = jnp.dtype(c.dtype)
        self.query = Linear(c.width, dtype=dtype)
        self.key_value = Linear(2 * c.width, dtype=dtype)
        self.out = Linear(c.width, dtype=dtype)
        if c.position.startswith("relative"):
            self.relative = RelativeTable(c)

    def keys_of(self, h_BND: jax.Array) -> KeyValues:
        """Return keys and values of history tokens [B, N, D]."""
        k_v = self.key_value(h_BND).reshape(*h_BND.shape[:2], 2, self.config.heads, -1)
        return KeyValues(*jnp.moveaxis(k_v, 2, 0))

    def __call__(
        self, x_BND: jax.Array, history: KeyValues | None, view: View, past: KeyValues | None
    ) -> jax.Array:
        """Return what the tokens read, [B, N, D].

        Args:
            x_BND: [B, N, D].
            history: keys and values of the history tokens of the row; None in serving.
            view: what the tokens see.
            past: keys and values of the kept history, or None.
        """
        c = self.config
        q_BNMHK = self.query(x_BND).reshape(*x_BND.shape[:2], 1, c.heads, -1)
        bias = self.relative(view.position) if c.position.startswith("relative") else None
        out = attend_range(
            c,
            q_BNMHK / mup_scale(c).head_width ** 0.5,
            history,
            view,
            past,
            bias=bias,
        )
        result: jax.Array = self.out(out.reshape(*x_BND.shape[:2], -1))
        return result


def history_token_pairs(
    config: ModelConfig, member: jax.Array, session: jax.Array
) -> dict[str, jax.Array]:
    """Count the pairs of target attention; the history tokens do not see each other.

    Args:
        config: the model.
        member, session: int32 [B, N], as in `Batch`.

    Returns:
        `stream_pairs` and `range_pairs` of `ligr_jax.nn.work.Work`, float32 [].
    """
    ranges = view_of_row(config, member, session, None).ranges
    assert ranges is not None
    return {"stream_pairs": jnp.zeros(()), "range_pairs": allowed_pairs(ranges)}


def history_token_model_flops(config: ModelConfig, work: Work) -> dict[str, float]:
    """Return the forward FLOPs of what is outside of the layers over M tokens, by part."""
    d = config.width
    return stream_flops(config, work.impressions) | {
        "attention_projections": work.impressions * 8 * d * d,
        "range_pairs": 4 * d * work.range_pairs,
    }
