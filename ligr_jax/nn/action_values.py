"""LiGR without action tokens: actions are values of attention (AttnMVP), at half of the tokens.

LinkedIn 2026, arXiv:2603.10369, `model.actions_as=values`. In every historical layer,

    out_i = sum over j of p_ij (W_v h_j + W_a LN(a_j)) + p_ii W_v h_i

over the impressions j that i sees, with p_i the softmax of q_i k_j over these j and i itself. The
own action is never a value: the range and the impression itself are attended to apart, and merged
by their log-sum-exp, so the derivative by the own action is exactly zero. Subtracting p_ii W_a a_i
afterwards would leave rounding.

The equations of the paper were not available; this form follows its abstract. Our choices: gates,
feed-forward layers, masks and set-wise layers are LiGR's; a_j is LiGR's action token, normalized
once for all layers. Other activations than softmax work in the same way.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.config import ModelConfig
from ligr_jax.data.batch import Batch
from ligr_jax.nn.blocks import FeedForward, Gated, project_qkv, relative_bias
from ligr_jax.nn.features import Embedded
from ligr_jax.nn.ligr import LiGR, ligr_flops
from ligr_jax.nn.linear import Linear
from ligr_jax.nn.mup import HISTORY
from ligr_jax.nn.serving import History
from ligr_jax.nn.streams import PastView, View
from ligr_jax.nn.two_stream import StreamStack, impression_coordinates
from ligr_jax.nn.work import Work
from ligr_jax.ops.attention import (
    KeyValues,
    OwnKeys,
    Past,
    append_to_past,
    attend_candidates,
    attend_candidates_cached,
)
from ligr_jax.ops.masks import allowed_pairs, earlier_mask


class ItemStream(NamedTuple):
    """Item tokens, and the normalized actions of the same impressions.

    items_BND: [B, N, D].
    actions_BND: [B, N, D]; None for candidates.
    """

    items_BND: jax.Array
    actions_BND: jax.Array | None


class ItemTokenLiGR(LiGR):
    """LiGR with one token per impression, the item; subclasses say what reads the actions."""

    def setup(self) -> None:
        super().setup()
        self.action_norm = nn.LayerNorm(dtype=jnp.dtype(self.config.dtype), name="action_norm")

    def run_layers(
        self, stream: ItemStream, view: View, past: Any, deterministic: bool, keep: bool
    ) -> tuple[jax.Array, Any]:
        """Return item tokens after the historical layers, and what later passes need.

        Args:
            stream: item tokens and actions.
            view: what they see; `history` is None for candidates.
            past: what was kept of the history, arrays [L, B, S, ..]; None without a history.
            deterministic: if False, dropout is applied, which needs a `dropout` key.
            keep: whether to return what later passes need, arrays [L, B, N, ..].
        """
        raise NotImplementedError

    def encode(self, batch: Batch) -> Any:
        """Return keys and values of a batch with one member per row, [L, B, N, H, K] each."""
        stream = self._stream(batch, self.tables(batch.ids), True)
        return self.run_layers(stream, self._row(batch), None, True, True)[1]

    def extend(self, batch: Batch, history: History) -> Any:
        """Return the keys and values of N new impressions, which also see their part of a history.

        Args:
            batch: new impressions of one member per row.
            history: what the model keeps of the member's earlier impressions.
        """
        stream = self._stream(batch, self.tables(batch.ids), True)
        view = self._row(batch)._replace(past=self._past_view(history))
        return self.run_layers(stream, view, history.kept, True, True)[1]

    def _after_history(
        self, batch: Batch, embedded: Embedded, deterministic: bool
    ) -> tuple[jax.Array, None]:
        stream = self._stream(batch, embedded, deterministic)
        return self.run_layers(stream, self._row(batch), None, deterministic, False)[0], None

    def _read_history(self, h_BCD: jax.Array, candidates: Batch, history: History) -> jax.Array:
        view = View(
            history=None,
            ranges=None,
            position=impression_coordinates(self.config, candidates),
            past=self._past_view(history),
        )
        return self.run_layers(ItemStream(h_BCD, None), view, history.kept, True, False)[0]

    def _stream(self, batch: Batch, embedded: Embedded, deterministic: bool) -> ItemStream:
        items_BND = self.item_tokens(batch, embedded)
        actions_BND = self.action_tokens(batch, embedded)
        if self.config.action_token == "actions_and_item":
            actions_BND += items_BND
        items_BND = self._positioned(items_BND, batch)
        return ItemStream(
            items_BND=self.dropout(items_BND, deterministic=deterministic),
            actions_BND=self.dropout(self.action_norm(actions_BND), deterministic=deterministic),
        )

    def _row(self, batch: Batch) -> View:
        ranges = earlier_mask(batch.member, batch.session, self.config.mask)
        itself = jnp.broadcast_to(
            jnp.arange(batch.member.shape[1], dtype=jnp.int32), ranges.lo.shape
        )
        return View(
            history=ranges._replace(own=itself),
            ranges=ranges,
            position=impression_coordinates(self.config, batch),
        )

    def _past_view(self, history: History) -> PastView:
        return PastView(
            length=history.end,
            end=history.end,
            position=impression_coordinates(self.config, history),
        )


class ActionValueLiGR(ItemTokenLiGR):
    """LiGR whose historical layers have actions as values (`model.actions_as=values`)."""

    def make_history_layers(self) -> nn.Module:
        """Return the historical layers."""
        return StreamStack(self.config, layer=ActionValueBlock, name=HISTORY)

    def run_layers(
        self, stream: ItemStream, view: View, past: Any, deterministic: bool, keep: bool
    ) -> tuple[jax.Array, Any]:
        """Return item tokens after the historical layers, and keys and values; see the base."""
        stream, kept = self.history_layers(stream, view, past, deterministic, keep)
        return stream.items_BND, kept


class ActionValueBlock(nn.Module):
    """One gated layer; `scale` multiplies both of its branches."""

    config: ModelConfig
    scale: float = 1.0

    @nn.compact
    def __call__(
        self,
        stream: ItemStream,
        view: View,
        past: KeyValues | None,
        deterministic: bool,
        keep: bool,
    ) -> tuple[ItemStream, KeyValues | None]:
        """Return the stream, and the keys and values that later impressions see, or None.

        Args:
            stream: item tokens, which change, and actions, which do not.
            view: what they see.
            past: keys and values of the kept history, [B, S, H, K], or None.
            deterministic: if False, dropout is applied, which needs a `dropout` key.
            keep: whether to return keys and values.
        """
        c = self.config
        attention = ActionValueAttention(c, name="attention")
        kept: list[KeyValues | None] = []

        def attended(x_BND: jax.Array) -> jax.Array:
            out_BND, new = attention(x_BND, stream.actions_BND, view, past)
            kept.append(new)
            return out_BND

        h_BND = Gated(c, scale=self.scale, name="gated_attention")(
            stream.items_BND, attended, deterministic
        )
        if c.ffn != "none":
            gated = Gated(c, scale=self.scale, name="gated_ffn")
            h_BND = gated(h_BND, FeedForward(c, name="ffn"), deterministic)
        return stream._replace(items_BND=h_BND), kept[0] if keep else None


class ActionValueAttention(nn.Module):
    """Attention whose values are the item and the action, and of the token itself the item."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x_BND: jax.Array,
        actions_BND: jax.Array | None,
        view: View,
        past: KeyValues | None,
    ) -> tuple[jax.Array, KeyValues | None]:
        """Return [B, N, D], and the keys and values that later impressions see.

        Args:
            x_BND: normalized item tokens [B, N, D].
            actions_BND: actions [B, N, D]; None for candidates.
            view: what the tokens see.
            past: keys and values of the kept history, [B, S, H, K], or None.
        """
        c = self.config
        dtype = jnp.dtype(c.dtype)
        q_BNHK, k_BNHK, v_BNHK = project_qkv(c, x_BND)
        new: KeyValues | None = None
        if actions_BND is not None:
            of_actions = Linear(c.width, dtype=dtype, name="action_values")(actions_BND)
            new = KeyValues(k_BNHK, v_BNHK + of_actions.reshape(v_BNHK.shape))
        own = OwnKeys(
            keys_BNPGK=k_BNHK[:, :, None],
            values_BNPGK=v_BNHK[:, :, None],
            allowed_MP=jnp.ones((1, 1), bool),
        )
        out_BNHK = attend_earlier(self, c, q_BNHK, new, view, past, own)
        return Linear(c.width, dtype=dtype, name="out")(out_BNHK.reshape(x_BND.shape)), new


def attend_earlier(
    module: nn.Module,
    config: ModelConfig,
    q_BNHK: jax.Array,
    new: KeyValues | None,
    view: View,
    past: KeyValues | None,
    own: OwnKeys | None,
) -> jax.Array:
    """Attend from items to earlier impressions, and to own keys, [B, N, H, K].

    Args:
        module: the layer, which gets the parameter of a relative bias.
        config: gives the activation, the positions and the implementation.
        q_BNHK: [B, N, H, K], queries.
        new: keys and values of the same impressions; None for candidates.
        view: what the items see; without `ranges`, the kept history only.
        past: keys and values of the kept history, [B, S, H, K], or None.
        own: keys of the items themselves, or None.
    """
    q_BNMHK = q_BNHK[:, :, None]
    bias = relative_bias(module, config, view.position)
    if view.past is None or past is None:
        assert new is not None
        assert view.ranges is not None
        out_BNMHK = attend_candidates(
            q_BNMHK,
            *new,
            view.ranges,
            own,
            activation=config.attention,
            bias=bias,
            implementation=config.implementation,
        )
        return out_BNMHK[:, :, 0]
    seen = Past(kept=past, length=view.past.end, position=view.past.position)
    if view.ranges is not None and new is not None:
        seen = append_to_past(seen, new, view.ranges.hi, view.position)
    out_BNMHK = attend_candidates_cached(q_BNMHK, seen, own, activation=config.attention, bias=bias)
    return out_BNMHK[:, :, 0]


def item_token_pairs(
    config: ModelConfig, member: jax.Array, session: jax.Array
) -> dict[str, jax.Array]:
    """Count the attention pairs of a historical layer over items, each with itself.

    Args:
        config: the model.
        member, session: int32 [B, N], as in `Batch`.

    Returns:
        `history_pairs` of `ligr_jax.nn.work.Work`, float32 [].
    """
    ranges = earlier_mask(member, session, config.mask)
    itself = (member > 0).sum(dtype=jnp.float32)
    return {"history_pairs": allowed_pairs(ranges) + itself}


def action_value_flops(config: ModelConfig, work: Work) -> dict[str, float]:
    """Return the forward FLOPs, by part; see `ligr_jax.cost.flops.forward_flops`."""
    values = work.impressions * config.depth * 2 * config.width**2
    return ligr_flops(config, work) | {"action_values": values}
