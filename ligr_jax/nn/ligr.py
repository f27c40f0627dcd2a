"""LiGR: LinkedIn's gated transformer ranker (Borisyuk et al. 2025, section 3.2)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.config import ModelConfig
from ligr_jax.data.batch import Batch
from ligr_jax.nn.blocks import Block, Stack
from ligr_jax.nn.features import ActionTokens, ItemTokens, feature_parts, feature_widths
from ligr_jax.nn.heads import Heads, calibrated, calibration_flops, heads_flops
from ligr_jax.nn.mup import HISTORY, SETWISE, mup_scale
from ligr_jax.nn.work import Work
from ligr_jax.ops.masks import history_mask, session_mask
from ligr_jax.tables.table import TABLES, Tables


class LiGR(nn.Module):
    """Logits of every action at every impression of a batch.

    Item and action tokens are interleaved and run through `depth` historical layers, in which an
    impression sees the sessions before its own; then item tokens alone run through `set_depth`
    set-wise layers, in which the items of a session see each other. No action of a session can
    reach a logit of the same session. The set-wise logits are added to the point-wise ones, so that
    serving may score many candidates point-wise and only the best of them set-wise.

    block: the layer of both stacks.
    """

    config: ModelConfig
    block: type[nn.Module] = Block

    @nn.compact
    def __call__(self, batch: Batch, deterministic: bool = True) -> jax.Array:
        """Returns float32 [B, N, A]; `deterministic=False` wants a `dropout` key."""
        c, scale = self.config, mup_scale(self.config)
        embedded = Tables(c, name=TABLES)(batch.ids)
        items = ItemTokens(c, name="items")(batch, embedded)
        actions = ActionTokens(c, name="actions")(batch, embedded)
        if c.action_token == "actions_and_item":
            actions += items
        h = jnp.stack([items, actions], axis=2)  # [B, N, 2, D]
        if c.position == "learned":
            # Counted from the oldest session: a target with p sessions behind it stands at p in
            # training and in serving. Per session, or the display rank would show.
            place = jnp.minimum(batch.session, c.max_sessions - 1)
            init = nn.initializers.normal(stddev=0.02)
            table = self.param("positions", init, (c.max_sessions, c.width), jnp.float32)
            h += table[place][:, :, None].astype(h.dtype)
        b, n = batch.member.shape
        h = nn.Dropout(c.dropout)(h.reshape(b, 2 * n, c.width), deterministic=deterministic)
        if c.depth:
            mask = history_mask(batch.member, batch.session, c.mask)
            history = Stack(c, c.depth, 1 / scale.depth, self.block, name=HISTORY)
            h = history(h, mask, _distance_axis(c, batch), deterministic)
        h = h[:, 0::2]
        logits = Heads(c, name="heads")(h, deterministic)
        if c.set_depth:
            mask = session_mask(batch.member, batch.session)
            setwise = Stack(c, c.set_depth, 1 / scale.set_depth, self.block, name=SETWISE)
            h = setwise(h, mask, None, deterministic)
            logits += Heads(c, adds=True, name="setwise_heads")(h, deterministic)
        return calibrated(c, logits, feature_parts(c, batch, embedded, outcome=False))


def _distance_axis(config: ModelConfig, batch: Batch) -> jax.Array | None:
    """Where each of the 2N tokens stands on the axis of the relative bias, if there is one."""
    if config.position == "relative_session":
        return jnp.repeat(batch.session, 2, axis=1)
    if config.position == "relative_time":
        return jnp.repeat(batch.time, 2, axis=1)
    return None


def ligr_flops(config: ModelConfig, work: Work) -> dict[str, float]:
    """`ligr_jax.nn.flops.forward_flops` of LiGR."""
    d, f, a = config.width, config.ffn_width, len(config.actions)
    n = work.impressions
    item = sum(feature_widths(config, outcome=False))
    outcome = sum(feature_widths(config, outcome=True))
    # Per token of one layer; an attention pair costs 2K for q k and 2K for p v, in each head.
    sublayers = 1 if config.ffn == "none" else 2
    attention, gates = 2 * 4 * d * d, 2 * d * d * sublayers * (config.gate == "sigmoid")
    ffn = 2 * {"gelu": 2, "swiglu": 3, "none": 0}[config.ffn] * d * f
    tokens = {"history": 2 * n * config.depth, "setwise": n * config.set_depth}
    layers = tokens["history"] + tokens["setwise"]
    heads = heads_flops(config, d) * (1 + (config.set_depth > 0)) + calibration_flops(config)
    return {
        "inputs": n * 2 * d * (item + outcome + 2 * a + 1),
        "attention_projections": layers * attention,
        "history_pairs": 4 * d * work.history_pairs * config.depth,
        "set_pairs": 4 * d * work.set_pairs * config.set_depth,
        "gates": layers * gates,
        "ffn": layers * ffn,
        "heads": n * heads,
    }
