"""ULTRA-HSTU: HSTU with one token per impression, semi-local attention and truncation.

Meta 2026, arXiv:2602.16986. The layer, with the same weights for both streams:

    h_i = x_i + a_i                     history tokens
    c_i = x_i + "no action yet"         candidate tokens, M = 1
    U, V, Q, K = split(silu(LN(h) W + b))
    A   = (silu(alpha Q K^T + rab) * mask) V / n
    h  <- h + (LN(A) * U) W_o

- History tokens see the K1 newest keys and the K2 oldest of the member (`ligr_jax.nn.semi_local`);
  a candidate sees all history tokens of earlier sessions, and itself. Where attention is
  semi-local, TorchEasyRec hides a candidate from itself, and one of a first session sees nothing.
- n is the number of keys of the token. TorchEasyRec divides by a configured length. Since LN
  follows, n matters only through the epsilon of LN.
- `model.ultra.activation=gate` applies SiLU to U alone, as TorchEasyRec does. Its output layer also
  reads U and A (7 D^2 parameters); ours does not.
- rab is the relative bias of the other kinds (`model.position`); alpha is K^-1/2.
- Truncation: tokens of the last layers see only the newest w history tokens, counted from each
  token: from impression i in the history stream, from the start of the session for a candidate. So
  one pass equals serving each session alone. The K2 oldest are not among them. The publication cuts
  the sequence at the request and computes no other token, and TorchEasyRec applies K2 to the tokens
  that are left; both would need a pass per session. Here every token of a truncated layer is
  computed, because each is the history of a later session.
- "The K2 oldest" are those of the row. If the data cuts a member's history into rows, they start
  at the row's first impression, and a history that is served has to start there as well.
- Not built: channels (a stack per kind of behavior), stochastic length, low-precision kernels.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.config import ModelConfig
from ligr_jax.data.batch import Batch
from ligr_jax.nn.blocks import relative_bias
from ligr_jax.nn.features import Embedded
from ligr_jax.nn.linear import Linear
from ligr_jax.nn.mup import HISTORY, mup_scale
from ligr_jax.nn.semi_local import SemiLocal, attend_semi_local, semi_local_masks
from ligr_jax.nn.streams import Streams, View, attend_range, view_of_row
from ligr_jax.nn.two_stream import StreamStack, TwoStream, history_token_flops, stream_flops
from ligr_jax.nn.work import Work
from ligr_jax.ops.attention import KeyValues, OwnKeys
from ligr_jax.ops.masks import allowed_pairs, newest_of


class UltraHSTU(TwoStream):
    """ULTRA-HSTU (`model.kind=ultra`)."""

    def setup(self) -> None:
        super().setup()
        c = self.config
        init = nn.initializers.normal(stddev=(c.width / mup_scale(c).width) ** -0.5)
        self.no_action = self.param("no_action", init, (c.width,), jnp.float32)

    def make_layers(self) -> nn.Module:
        """Return the layers that see all history, and the truncated ones."""
        return UltraLayers(self.config, name=HISTORY)

    def _both_streams(self, batch: Batch, embedded: Embedded, deterministic: bool) -> Streams:
        items_BND = self.item_tokens(batch, embedded)
        h_BND = items_BND + self.action_tokens(batch, embedded)
        c_BNMD = self._unanswered(items_BND)
        return Streams(
            history_BND=self._stream_input(h_BND, batch, deterministic),
            candidates_BNMD=self._stream_input(c_BNMD, batch, deterministic),
        )

    def _candidate_stream(self, batch: Batch, embedded: Embedded, deterministic: bool) -> jax.Array:
        c_BNMD = self._unanswered(self.item_tokens(batch, embedded))
        return self._stream_input(c_BNMD, batch, deterministic)

    def _unanswered(self, items_BND: jax.Array) -> jax.Array:
        """Return items without an action yet, [B, N, 1, D]."""
        return (items_BND + self.no_action.astype(items_BND.dtype))[:, :, None]


class UltraLayers(nn.Module):
    """Layers that see all history, then layers that see its newest part."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, streams: Streams, view: View, past: Any, deterministic: bool, keep: bool
    ) -> tuple[Streams, Any]:
        """Return the streams, and what the layers keep; see `ligr_jax.nn.two_stream`."""
        c = self.config
        full = c.depth - c.ultra.truncated_layers
        stacks = [("full", UltraLayer, slice(0, full))]
        if full < c.depth:
            stacks.append(("truncated", TruncatedUltraLayer, slice(full, c.depth)))
        kept = []
        for name, layer, part in stacks:
            stack = StreamStack(c, layer=layer, depth=part.stop - part.start, name=name)
            of_part = jax.tree.map(lambda x, part=part: x[part], past)
            streams, new = stack(streams, view, of_part, deterministic, keep)
            kept.append(new)
        return streams, jax.tree.map(lambda *x: jnp.concatenate(x), *kept)


class UltraLayer(nn.Module):
    """One layer of both streams; `scale` multiplies what is added to them.

    truncated: whether only the newest history tokens are seen.
    """

    config: ModelConfig
    scale: float = 1.0
    truncated: bool = False

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
        norm = nn.LayerNorm(dtype=dtype, name="norm")
        uvqk = Linear(4 * c.width, use_bias=True, dtype=dtype, name="uvqk")
        mixed_norm = nn.LayerNorm(dtype=dtype, name="mixed_norm")
        out = Linear(c.width, dtype=dtype, name="out")
        dropout = nn.Dropout(c.dropout)
        bias = relative_bias(self, c, view.position)
        keys, window = visible_history(c, self.truncated)

        def projected(x: jax.Array) -> tuple[jax.Array, jax.Array, KeyValues]:
            """Return the gate U [.., D], the queries and the keys and values [.., H, K]."""
            u, *vqk = jnp.split(uvqk(norm(x)), 4, axis=-1)
            if c.ultra.activation == "all":
                vqk = [nn.silu(part) for part in vqk]
            v, q, k = (part.reshape(*x.shape[:-1], c.heads, -1) for part in vqk)
            return nn.silu(u), q / mup_scale(c).head_width ** 0.5, KeyValues(k, v)

        def added(x: jax.Array, u: jax.Array, mixed: jax.Array) -> jax.Array:
            branch = out(mixed_norm(mixed.reshape(x.shape)) * u)
            result: jax.Array = x + self.scale * dropout(branch, deterministic=deterministic)
            return result

        h_BND, c_BNMD = streams
        new: KeyValues | None = None
        if h_BND is not None:
            u_BND, q_BNHK, new = projected(h_BND)
            mixed_BNHK = attend_semi_local(c, q_BNHK, new, view, past, keys, bias)
            h_BND = added(h_BND, u_BND, mixed_BNHK)
        if c_BNMD is not None:
            u_BNMD, q_BNMHK, own = projected(c_BNMD)
            mixed_BNMHK = attend_range(
                c,
                q_BNMHK,
                new,
                view,
                past,
                OwnKeys(*own, allowed_MP=jnp.ones((1, 1), bool)),
                activation="silu",
                bias=bias,
                window=window,
            )
            c_BNMD = added(c_BNMD, u_BNMD, mixed_BNMHK)
        return Streams(h_BND, c_BNMD), new if keep else None


class TruncatedUltraLayer(UltraLayer):
    """A layer that sees only the newest history tokens."""

    truncated: bool = True


def visible_history(config: ModelConfig, truncated: bool) -> tuple[SemiLocal, int | None]:
    """Return the keys of a history token, and the window of a candidate; None for no window.

    Args:
        config: the model.
        truncated: whether the layer sees only the newest history tokens.
    """
    ultra = config.ultra
    if not truncated:
        return SemiLocal(ultra.local_window, ultra.oldest), None
    window = ultra.truncated_window
    return SemiLocal(min(ultra.local_window or window, window)), window


def ultra_pairs(config: ModelConfig, member: jax.Array, session: jax.Array) -> dict[str, jax.Array]:
    """Count the attention pairs of all layers.

    Args:
        config: the model.
        member, session: int32 [B, N], as in `Batch`.

    Returns:
        `stream_pairs` and `range_pairs` of `ligr_jax.nn.work.Work`, float32 [].
    """
    view = view_of_row(config, member, session, None)
    assert view.history is not None
    assert view.ranges is not None
    stream_pairs = range_pairs = jnp.zeros(())
    truncated = config.ultra.truncated_layers
    for layers, is_truncated in ((config.depth - truncated, False), (truncated, True)):
        keys, window = visible_history(config, is_truncated)
        for mask in semi_local_masks(view.history, keys):
            stream_pairs += layers * allowed_pairs(mask)
        range_pairs += layers * allowed_pairs(newest_of(view.ranges, window))
    return {"stream_pairs": stream_pairs, "range_pairs": range_pairs}


def ultra_flops(config: ModelConfig, work: Work) -> dict[str, float]:
    """Return the forward FLOPs, by part; see `ligr_jax.cost.flops.forward_flops`."""
    d, n = config.width, work.impressions
    return stream_flops(config, n) | {
        "inputs": n * history_token_flops(config),  # the item tokens of both streams are the same
        "attention_projections": 2 * n * config.depth * 10 * d * d,
        "stream_pairs": 4 * d * work.stream_pairs,
        "range_pairs": 4 * d * work.range_pairs,
        "own_pairs": 4 * d * n * config.depth,
    }
