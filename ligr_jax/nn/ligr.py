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

    Item and action tokens are interleaved and go through `depth` historical layers, in which an
    impression sees earlier sessions (`model.mask`). Then only the item tokens go through
    `set_depth` set-wise layers, in which the items of a session see each other. No action of a
    session can affect a logit of the same session. Set-wise logits are added to the point-wise
    ones, so serving can score many candidates point-wise and only the best of them set-wise.

    block: the class of the layers of both stacks; see `Stack`.
    """

    config: ModelConfig
    block: type[nn.Module] = Block

    @nn.compact
    def __call__(self, batch: Batch, deterministic: bool = True) -> jax.Array:
        """Return logits, float32 [B, N, A].

        Args:
            batch: B rows of N impressions.
            deterministic: if False, dropout is applied, which needs a `dropout` key.
        """
        c = self.config
        scale = mup_scale(c)

        # Tokens: an item token and an action token per impression.
        embedded = Tables(c, name=TABLES)(batch.ids)
        items_BND = ItemTokens(c, name="items")(batch, embedded)
        actions_BND = ActionTokens(c, name="actions")(batch, embedded)
        if c.action_token == "actions_and_item":
            actions_BND += items_BND
        h_BN2D = jnp.stack([items_BND, actions_BND], axis=2)
        if c.position == "learned":
            # Positions count sessions from the oldest one, so a target after p sessions has
            # position p in training and in serving. Positions of impressions would reveal the
            # display rank.
            position = jnp.minimum(batch.session, c.max_sessions - 1)
            init = nn.initializers.normal(stddev=0.02)
            table = self.param("positions", init, (c.max_sessions, c.width), jnp.float32)
            h_BN2D += table[position][:, :, None].astype(h_BN2D.dtype)
        b, n = batch.member.shape
        dropout = nn.Dropout(c.dropout)
        h_BTD = dropout(h_BN2D.reshape(b, 2 * n, c.width), deterministic=deterministic)

        # Historical layers over T = 2N tokens, then the point-wise logits of item tokens.
        if c.depth:
            mask = history_mask(batch.member, batch.session, c.mask)
            history = Stack(c, depth=c.depth, scale=1 / scale.depth, block=self.block, name=HISTORY)
            h_BTD = history(h_BTD, mask, _coordinates(c, batch), deterministic)
        h_BND = h_BTD[:, 0::2]
        logits_BNA = Heads(c, name="heads")(h_BND, deterministic)

        # Set-wise layers over N item tokens.
        if c.set_depth:
            mask = session_mask(batch.member, batch.session)
            setwise = Stack(
                c, depth=c.set_depth, scale=1 / scale.set_depth, block=self.block, name=SETWISE
            )
            h_BND = setwise(h_BND, mask, None, deterministic)
            logits_BNA += Heads(c, adds=True, name="setwise_heads")(h_BND, deterministic)
        return calibrated(c, logits_BNA, feature_parts(c, batch, embedded, outcome=False))


def _coordinates(config: ModelConfig, batch: Batch) -> jax.Array | None:
    """Return the coordinates of the 2N tokens for the relative bias, [B, 2N], or None."""
    if config.position == "relative_session":
        return jnp.repeat(batch.session, 2, axis=1)
    if config.position == "relative_time":
        return jnp.repeat(batch.time, 2, axis=1)
    return None


def ligr_flops(config: ModelConfig, work: Work) -> dict[str, float]:
    """Return the forward FLOPs of LiGR, by part; see `ligr_jax.cost.flops.forward_flops`."""
    d = config.width
    f = config.ffn_width
    a = len(config.actions)
    n = work.impressions
    item = sum(feature_widths(config, outcome=False))
    outcome = sum(feature_widths(config, outcome=True))
    # FLOPs per token of one layer. An attention pair costs 2K for q k and 2K for p v, in each head.
    sublayers = 1 if config.ffn == "none" else 2
    attention = 2 * 4 * d * d
    gates = 2 * d * d * sublayers * (config.gate == "sigmoid")
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
