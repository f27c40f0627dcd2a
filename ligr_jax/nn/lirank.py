"""LiRank's rankers: Feed, Ads and Jobs (Borisyuk et al. 2024, arXiv:2402.06859).

    x0     = item features ++ history of the member
    feed   x = crosses(x0), hidden layers; a tower for each group of actions     (3.1, figure 8)
    ads    for each group its own crosses(x0) ++ MLP(x0)                         (3.2, figure 2)
    jobs   for each group its own crosses(x0)                                    (A.8, figure 10)
    logits + popularity of the item, calibrated

The paper's figure of Feed does not say how crosses and hidden layers are joined: here in a row.
Unlike LiGR, a ranker of this kind sees one impression at a time; what it knows of the member is the
window of the history encoder, of sessions before the impression's own.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.config import ConfigError, ModelConfig
from ligr_jax.data.batch import Batch
from ligr_jax.nn.batch_norm import MaskedBatchNorm
from ligr_jax.nn.cross import LowRankCross, ResidualCross
from ligr_jax.nn.experts import SparseExperts, sparse_flops
from ligr_jax.nn.features import ActionTokens, Embedded, feature_parts, feature_widths
from ligr_jax.nn.heads import (
    Heads,
    base_logits,
    calibrated,
    calibration_flops,
    heads_flops,
    towers_flops,
)
from ligr_jax.nn.linear import Linear
from ligr_jax.nn.mlp import MLP, mlp_flops
from ligr_jax.nn.towers import Towers
from ligr_jax.nn.transact import HistoryEncoder
from ligr_jax.nn.work import Work
from ligr_jax.ops.windows import history_windows
from ligr_jax.tables.table import TABLES, Tables


class LiRank(nn.Module):
    """Logits of every action at every impression, of the variant `model.lirank` names."""

    config: ModelConfig

    @nn.compact
    def __call__(self, batch: Batch, deterministic: bool = True) -> jax.Array:
        """Returns float32 [B, N, A]; `deterministic=False` wants a `dropout` key and updates batch
        statistics, if there are any."""
        c, r, dtype = self.config, self.config.lirank, jnp.dtype(self.config.dtype)
        embedded: Embedded = Tables(c, name=TABLES)(batch.ids)
        if r.wide:
            rows, effects = embedded[r.wide], len(c.actions)
            embedded = {**embedded, r.wide: rows[..., :-effects]}
        parts = feature_parts(c, batch, embedded, outcome=False)
        if not parts:
            raise ConfigError("model.features declares no item feature; declare at least one")
        if r.batch_norm:
            parts = _normalized(c, batch, parts, deterministic)
        x0 = jnp.concatenate(list(parts.values()), axis=-1).astype(dtype)
        if r.history:
            x0 = jnp.concatenate([x0, self._history(batch, embedded, x0, deterministic)], axis=-1)
        if r.variant == "feed":
            x = _crossed(c, x0, "cross")
            if r.experts:
                shape = (r.experts, r.chosen, r.mlp, r.gated, r.balance, dtype)
                x = SparseExperts(*shape, name="experts")(x, batch.member > 0, deterministic)
            else:
                x = MLP(r.mlp, r.gated, c.dropout, dtype, name="mlp")(x, deterministic)
            logits = Heads(c, normed=False, name="heads")(x, deterministic)
        else:
            inputs = [self._of_group(i, x0, deterministic) for i in range(len(c.groups))]
            widths = c.head.widths if c.head.kind == "mlp" else ()
            of_towers = (c.groups, base_logits(c), widths, c.head.gated, c.dropout, dtype)
            logits = Towers(*of_towers, name="towers")(inputs, deterministic)
        if r.wide:
            # p = sigmoid(logit(model) + random effect), 3.9: a wide part that sees the item alone
            logits += rows[..., -effects:]
        return calibrated(c, logits, parts)

    def _of_group(self, group: int, x0: jax.Array, deterministic: bool) -> jax.Array:
        """What interaction layers of its own give a group of actions."""
        c, r = self.config, self.config.lirank
        x = _crossed(c, x0, f"group_{group}_cross")
        if r.variant == "jobs":
            return x
        mlp = MLP(r.mlp, r.gated, c.dropout, jnp.dtype(c.dtype), name=f"group_{group}_mlp")
        return jnp.concatenate([x, mlp(x0, deterministic)], axis=-1)

    def _history(
        self, batch: Batch, embedded: Embedded, x: jax.Array, deterministic: bool
    ) -> jax.Array:
        """Features of each impression's window of earlier sessions; x: its item features."""
        c, r, dtype = self.config, self.config.lirank, jnp.dtype(self.config.dtype)
        narrow = dataclasses.replace(c, width=r.history_width, heads=1)
        items = Linear(r.history_width, use_bias=True, dtype=dtype, name="items")(x)
        actions = ActionTokens(narrow, name="actions")(batch, embedded)
        windows = history_windows(batch.member, batch.session, r.history, c.mask)
        shape = (r.history_heads, r.history_layers, r.history_last, c.dropout, dtype)
        return HistoryEncoder(*shape, name="history")(items, actions, windows, deterministic)


def _normalized(
    config: ModelConfig, batch: Batch, parts: Mapping[str, jax.Array], deterministic: bool
) -> dict[str, jax.Array]:
    """`feature_parts` with numbers through batch normalization; missing ones stay zero."""
    names = [n for n in parts if config.features[n].kind == "numeric"]
    if not names:
        return dict(parts)
    values = jnp.stack([batch.numeric[n] for n in names], axis=-1)
    there = ~jnp.isnan(values) & (batch.member > 0)[..., None]
    normal = MaskedBatchNorm(name="batch_norm")(values, there, deterministic)
    pairs = {n: jnp.stack([normal[..., i], ~there[..., i]], -1) for i, n in enumerate(names)}
    return {**parts, **pairs}


def _crossed(config: ModelConfig, x0: jax.Array, name: str) -> jax.Array:
    """x0 through its crosses."""
    r, dtype, x = config.lirank, jnp.dtype(config.dtype), x0
    for i in range(r.cross_layers):
        if r.residual:
            shape = (r.rank, r.temperature, r.learned_temperature, dtype)
            x = ResidualCross(*shape, name=f"{name}_{i}")(x0, x)
        else:
            x = LowRankCross(r.rank, dtype, name=f"{name}_{i}")(x0, x)
    return x


def lirank_flops(config: ModelConfig, work: Work) -> dict[str, float]:
    """`ligr_jax.nn.flops.forward_flops` of LiRank; windows are computed whole, full or not."""
    c, r, groups = config, config.lirank, len(config.groups)
    item = sum(feature_widths(c, outcome=False)) - len(c.actions) * bool(r.wide)
    inputs, history, width = 0, 0, item
    if r.history:
        w, d = r.history_width, 3 * r.history_width
        outcome = sum(feature_widths(c, outcome=True))
        inputs = 2 * w * (item + outcome + 2 * len(c.actions) + 1)
        # Of a step of a layer: qkv and out, D -> D / 2 -> D, and its row of scores and sums.
        step = 2 * 4 * d * d + 2 * 2 * d * (d // 2) + 4 * d * r.history
        history = r.history * r.history_layers * step
        width += (1 + r.history_last) * d
    low_rank = 2 * 2 * width * r.rank
    attention = 2 * 4 * width * r.rank + 2 * r.rank**2
    crosses = r.cross_layers * (low_rank + attention * r.residual)
    if r.variant == "feed":
        if r.experts:
            hidden = sparse_flops(width, r.experts, r.chosen, r.mlp, r.gated)
        else:
            hidden = mlp_flops(width, r.mlp, r.gated)
        heads = heads_flops(c, r.mlp[-1] if r.mlp else width)
    else:
        crosses *= groups
        beside = r.mlp if r.variant == "ads" else ()
        hidden = groups * mlp_flops(width, beside, r.gated)
        heads = towers_flops(c, width + sum(beside[-1:]))
    each = {"inputs": inputs, "history": history, "crosses": crosses, "mlp": hidden}
    each["heads"] = heads + calibration_flops(c)
    return {name: work.impressions * flops for name, flops in each.items()}
