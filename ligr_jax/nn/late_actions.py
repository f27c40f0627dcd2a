"""LiGR without action tokens: one attention to actions after the historical layers (AttnLFA).

LinkedIn 2026, arXiv:2603.10369, `model.actions_as=late_values`. The historical layers see items
only. After them,

    o_i = sum over j of p_ij W_a LN(a_j)        over the impressions j that i sees, not i itself
    h_i <- h_i + W_o o_i

with p_i the softmax of q_i k_j, and q and k projections of LN(h). Heads and set-wise layers read
h_i. An item without history has o_i = 0.

The equations of the paper were not available; this form follows its abstract. Our choices: as in
`ligr_jax.nn.action_values`, and the sum has no factor of depth, because it is one branch at any
number of layers.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.config import ModelConfig
from ligr_jax.nn.action_values import ItemStream, ItemTokenLiGR, attend_earlier
from ligr_jax.nn.ligr import ligr_flops
from ligr_jax.nn.linear import Linear
from ligr_jax.nn.mup import LATE_ACTIONS, mup_scale
from ligr_jax.nn.streams import View
from ligr_jax.nn.work import Work
from ligr_jax.ops.attention import KeyValues, Past


class LateActionLiGR(ItemTokenLiGR):
    """LiGR that attends to actions once, after its layers (`model.actions_as=late_values`)."""

    def setup(self) -> None:
        super().setup()
        self.late_actions = LateActions(self.config, name=LATE_ACTIONS)

    def run_layers(
        self, stream: ItemStream, view: View, past: Any, deterministic: bool, keep: bool
    ) -> tuple[jax.Array, Any]:
        """Return item tokens with the actions of their history, and keys and values.

        Keys and values of the late attention are those of the last index of L + 1.
        """
        in_layers = late_past = None
        if view.past is not None:
            in_layers = Past(
                kept=jax.tree.map(lambda x: x[:-1], past),
                length=view.past.end,
                position=view.past.position,
            )
            late_past = jax.tree.map(lambda x: x[-1], past)
        h_BND, kept = self.history_layers(
            stream.items_BND, view.history, view.position, deterministic, in_layers, keep
        )
        added_BND, late = self.late_actions(ItemStream(h_BND, stream.actions_BND), view, late_past)
        if keep:
            kept = jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), kept, late)
        return h_BND + self.dropout(added_BND, deterministic=deterministic), kept


class LateActions(nn.Module):
    """Attention from items to the actions of earlier impressions."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, stream: ItemStream, view: View, past: KeyValues | None
    ) -> tuple[jax.Array, KeyValues | None]:
        """Return what is added to the items [B, N, D], and keys and values of the impressions.

        Args:
            stream: items after the layers, and actions.
            view: what the items see.
            past: keys and values of the kept history, [B, S, H, K], or None.
        """
        c = self.config
        dtype = jnp.dtype(c.dtype)
        x_BND = nn.LayerNorm(dtype=dtype, name="norm")(stream.items_BND)
        shape = (*x_BND.shape[:2], c.heads, -1)
        q_BNHK = Linear(c.width, dtype=dtype, name="query")(x_BND).reshape(shape)
        q_BNHK /= mup_scale(c).head_width ** 0.5
        new: KeyValues | None = None
        if stream.actions_BND is not None:
            k_BND = Linear(c.width, dtype=dtype, name="key")(x_BND)
            v_BND = Linear(c.width, dtype=dtype, name="value")(stream.actions_BND)
            new = KeyValues(k_BND.reshape(shape), v_BND.reshape(shape))
        out_BNHK = attend_earlier(self, c, q_BNHK, new, view, past, None)
        return Linear(c.width, dtype=dtype, name="out")(out_BNHK.reshape(x_BND.shape)), new


def late_action_flops(config: ModelConfig, work: Work) -> dict[str, float]:
    """Return the forward FLOPs, by part; see `ligr_jax.cost.flops.forward_flops`."""
    parts = ligr_flops(config, work)
    d, n = config.width, work.impressions
    parts["attention_projections"] += 4 * d * d * n  # queries and output
    parts["history_pairs"] += 4 * d * (work.history_pairs - n)  # without those of items themselves
    return parts | {"action_values": 4 * d * d * n}
