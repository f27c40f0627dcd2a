"""LiRank's rankers: Feed, Ads and Jobs (Borisyuk et al. 2024, arXiv:2402.06859).

    x0     = item features ++ history of the member
    feed   x = crosses(x0), hidden layers; a tower for each group of actions     (3.1, figure 8)
    ads    for each group its own crosses(x0) ++ MLP(x0)                         (3.2, figure 2)
    jobs   for each group its own crosses(x0)                                    (A.8, figure 10)
    logits + popularity of the item, calibrated

The paper's figure of Feed does not say how crosses and hidden layers are connected; here they are
in series. Unlike LiGR, these rankers see one impression at a time. All they know of the member is
the window of the history encoder, which ends before the impression's own session.
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
from ligr_jax.nn.serving import History, Scores
from ligr_jax.nn.towers import Towers
from ligr_jax.nn.transact import HistoryEncoder
from ligr_jax.nn.work import Work
from ligr_jax.ops.windows import history_windows, newest_windows
from ligr_jax.tables.table import TABLES, Tables


class LiRank(nn.Module):
    """Logits of every action at every impression; `model.lirank.variant` selects the ranker."""

    config: ModelConfig

    def __call__(self, batch: Batch, deterministic: bool = True) -> jax.Array:
        """Return logits, float32 [B, N, A].

        Args:
            batch: B rows of N impressions.
            deterministic: if False, dropout is applied, which needs a `dropout` key, and batch
                statistics are updated.

        Raises:
            ValueError: the configuration declares no item feature.
        """
        logits_BNA: jax.Array = self._ranked(batch, deterministic)[0]
        return logits_BNA

    def encode(self, batch: Batch) -> jax.Array | None:
        """Return the steps of the history encoder, [1, B, N, W]; None without an encoder."""
        steps_BNW: jax.Array | None = self._ranked(batch, deterministic=True)[1]
        return None if steps_BNW is None else steps_BNW[None]

    def extend(self, batch: Batch, history: History) -> jax.Array | None:
        """Return the steps of new impressions, which do not depend on the history."""
        return self.encode(batch)

    def score(self, candidates: Batch, history: History) -> Scores:
        """Return the scores of candidates, each with the newest steps of the history.

        Args:
            candidates: C candidates of a request in each row; their labels are not used.
            history: what the model keeps of the member's earlier impressions.
        """
        logits_BCA = self._ranked(candidates, True, history)[0]
        return Scores(logits_BCA=logits_BCA, valid_BC=candidates.member > 0)

    @nn.compact
    def _ranked(
        self, batch: Batch, deterministic: bool, history: History | None = None
    ) -> tuple[jax.Array, jax.Array | None]:
        """Return logits [B, N, A], and the steps of the impressions; windows are of `history`."""
        c = self.config
        r = c.lirank
        dtype = jnp.dtype(c.dtype)

        # Features. In a table with random effects, the last A columns are effects of the item.
        embedded: Embedded = Tables(c, name=TABLES)(batch.ids)
        if r.wide:
            rows_BNE = embedded[r.wide]
            effects = len(c.actions)
            embedded = {**embedded, r.wide: rows_BNE[..., :-effects]}
        parts = feature_parts(c, batch, embedded, outcome=False)
        if not parts:
            raise ConfigError("model.features declares no item feature; declare at least one")
        if r.batch_norm:
            parts = _normalized(c, batch, parts, deterministic)
        x0_BND = jnp.concatenate(list(parts.values()), axis=-1).astype(dtype)
        steps_BNW = None
        if r.history:
            history_BND, steps_BNW = self._history(batch, embedded, x0_BND, deterministic, history)
            x0_BND = jnp.concatenate([x0_BND, history_BND], axis=-1)

        # Interactions and towers: shared by all actions in Feed, separate per group otherwise.
        if r.variant == "feed":
            x_BND = _crossed(c, x0_BND, "cross")
            if r.experts:
                experts = SparseExperts(
                    count=r.experts,
                    chosen=r.chosen,
                    widths=r.mlp,
                    gated=r.gated,
                    balance=r.balance,
                    dtype=dtype,
                    name="experts",
                )
                x_BND = experts(x_BND, batch.member > 0, deterministic)
            else:
                mlp = MLP(r.mlp, gated=r.gated, dropout=c.dropout, dtype=dtype, name="mlp")
                x_BND = mlp(x_BND, deterministic)
            logits_BNA = Heads(c, normed=False, name="heads")(x_BND, deterministic)
        else:
            inputs = [self._group_input(i, x0_BND, deterministic) for i in range(len(c.groups))]
            towers = Towers(
                c.groups,
                start=base_logits(c),
                widths=c.head.widths if c.head.kind == "mlp" else (),
                gated=c.head.gated,
                dropout=c.dropout,
                dtype=dtype,
                name="towers",
            )
            logits_BNA = towers(inputs, deterministic)

        # p = sigmoid(logit(model) + random effect), 3.9: a wide part that depends on the item only.
        if r.wide:
            logits_BNA += rows_BNE[..., -effects:]
        return calibrated(c, logits_BNA, parts), steps_BNW

    def _group_input(self, group: int, x0_BND: jax.Array, deterministic: bool) -> jax.Array:
        """Apply the interaction layers of a group of actions; the result is its tower's input."""
        c = self.config
        r = c.lirank
        x_BND = _crossed(c, x0_BND, f"group_{group}_cross")
        if r.variant == "jobs":
            return x_BND
        mlp = MLP(
            r.mlp,
            gated=r.gated,
            dropout=c.dropout,
            dtype=jnp.dtype(c.dtype),
            name=f"group_{group}_mlp",
        )
        return jnp.concatenate([x_BND, mlp(x0_BND, deterministic)], axis=-1)

    def _history(
        self,
        batch: Batch,
        embedded: Embedded,
        x_BND: jax.Array,
        deterministic: bool,
        history: History | None,
    ) -> tuple[jax.Array, jax.Array]:
        """Encode each impression's window of earlier sessions; x_BND: its item features.

        Returns:
            The encodings of the windows, and the steps of the impressions [B, N, W].
        """
        c = self.config
        r = c.lirank
        dtype = jnp.dtype(c.dtype)
        narrow = dataclasses.replace(c, width=r.history_width, heads=1)
        items_BND = Linear(r.history_width, use_bias=True, dtype=dtype, name="items")(x_BND)
        actions_BND = ActionTokens(narrow, name="actions")(batch, embedded)
        if history is None:
            windows = history_windows(batch.member, batch.session, r.history, c.mask)
        else:
            end = jnp.broadcast_to(history.end, batch.member.shape)
            windows = newest_windows(end, r.history)
        new_BNW = jnp.concatenate([items_BND, actions_BND], axis=-1)
        steps_BSW = new_BNW if history is None else history.kept[0]
        encoder = HistoryEncoder(
            heads=r.history_heads,
            layers=r.history_layers,
            last=r.history_last,
            dropout=c.dropout,
            dtype=dtype,
            name="history",
        )
        return encoder(items_BND, steps_BSW, windows, deterministic), new_BNW


def _normalized(
    config: ModelConfig, batch: Batch, parts: Mapping[str, jax.Array], deterministic: bool
) -> dict[str, jax.Array]:
    """Batch-normalize the numeric features among `parts`; missing values stay zero."""
    names = [n for n in parts if config.features[n].kind == "numeric"]
    if not names:
        return dict(parts)
    values = jnp.stack([batch.numeric[n] for n in names], axis=-1)
    valid = ~jnp.isnan(values) & (batch.member > 0)[..., None]
    normalized = MaskedBatchNorm(name="batch_norm")(values, valid, deterministic)
    pairs = {n: jnp.stack([normalized[..., i], ~valid[..., i]], -1) for i, n in enumerate(names)}
    return {**parts, **pairs}


def _crossed(config: ModelConfig, x0: jax.Array, name: str) -> jax.Array:
    """Apply the cross layers, named `name`_0, `name`_1, ..., to x0 [B, N, D]."""
    r = config.lirank
    dtype = jnp.dtype(config.dtype)
    x = x0
    for i in range(r.cross_layers):
        if r.residual:
            cross: ResidualCross | LowRankCross = ResidualCross(
                rank=r.rank,
                temperature=r.temperature,
                learned=r.learned_temperature,
                dtype=dtype,
                name=f"{name}_{i}",
            )
        else:
            cross = LowRankCross(rank=r.rank, dtype=dtype, name=f"{name}_{i}")
        x = cross(x0, x)
    return x


def lirank_flops(config: ModelConfig, work: Work) -> dict[str, float]:
    """Return the forward FLOPs of LiRank, by part; see `ligr_jax.cost.flops.forward_flops`.

    Windows count with all their steps, because empty steps are computed as well.
    """
    c = config
    r = c.lirank
    groups = len(c.groups)

    # Width of x0, and the history encoder.
    item = sum(feature_widths(c, outcome=False)) - len(c.actions) * bool(r.wide)
    inputs, history, width = 0, 0, item
    if r.history:
        w, d = r.history_width, 3 * r.history_width
        outcome = sum(feature_widths(c, outcome=True))
        inputs = 2 * w * (item + outcome + 2 * len(c.actions) + 1)
        # One step in one layer: qkv and out, D -> D / 2 -> D, and its row of scores and sums.
        step = 2 * 4 * d * d + 2 * 2 * d * (d // 2) + 4 * d * r.history
        history = r.history * r.history_layers * step
        width += (1 + r.history_last) * d

    # Cross layers of one group.
    low_rank = 2 * 2 * width * r.rank
    attention = 2 * 4 * width * r.rank + 2 * r.rank**2
    crosses = r.cross_layers * (low_rank + attention * r.residual)

    # Hidden layers, and heads or towers.
    if r.variant == "feed":
        if r.experts:
            hidden = sparse_flops(width, r.experts, r.chosen, r.mlp, r.gated)
        else:
            hidden = mlp_flops(width, r.mlp, r.gated)
        heads = heads_flops(c, r.mlp[-1] if r.mlp else width)
    else:
        crosses *= groups
        parallel = r.mlp if r.variant == "ads" else ()
        hidden = groups * mlp_flops(width, parallel, r.gated)
        heads = towers_flops(c, width + sum(parallel[-1:]))
    per_impression = {"inputs": inputs, "history": history, "crosses": crosses, "mlp": hidden}
    per_impression["heads"] = heads + calibration_flops(c)
    return {name: work.impressions * flops for name, flops in per_impression.items()}
