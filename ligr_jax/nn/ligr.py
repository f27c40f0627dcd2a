"""LiGR: LinkedIn's gated transformer ranker (Borisyuk et al. 2025, section 3.2)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.config import ModelConfig, escape
from ligr_jax.data.batch import Batch
from ligr_jax.nn.blocks import Block, Stack
from ligr_jax.nn.experts import LOSSES
from ligr_jax.nn.features import (
    ActionTokens,
    Embedded,
    ItemTokens,
    feature_parts,
    feature_widths,
)
from ligr_jax.nn.head_inputs import HeadInputs, head_inputs
from ligr_jax.nn.heads import (
    Heads,
    calibration_flops,
    calibration_input,
    calibration_layer,
    heads_flops,
)
from ligr_jax.nn.mup import HISTORY, SETWISE, mup_scale
from ligr_jax.nn.next_item import NextItem, next_item_flops, next_item_loss
from ligr_jax.nn.serving import History, Scores, SetInput
from ligr_jax.nn.work import Work
from ligr_jax.ops.attention import KeyValues, Past
from ligr_jax.ops.masks import Mask, history_mask, session_mask
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

    def make_history_layers(self) -> nn.Module:
        """Return the historical layers."""
        c = self.config
        scale = 1 / mup_scale(c).depth
        return Stack(c, depth=c.depth, scale=scale, block=self.block, name=HISTORY)

    def setup(self) -> None:
        c = self.config
        self.tables = Tables(c, name=TABLES)
        self.item_tokens = ItemTokens(c, name="items")
        self.action_tokens = ActionTokens(c, name="actions")
        if c.position == "learned":
            init = nn.initializers.normal(stddev=0.02)
            self.positions = self.param("positions", init, (c.max_sessions, c.width), jnp.float32)
        self.dropout = nn.Dropout(c.dropout, name="Dropout_0")  # the name decides its random key
        if c.depth:
            self.history_layers = self.make_history_layers()
        self.heads = Heads(c, name="heads")
        if c.set_depth:
            scale = 1 / mup_scale(c).set_depth
            self.setwise_layers = Stack(
                c, depth=c.set_depth, scale=scale, block=self.block, name=SETWISE
            )
            self.setwise_heads = Heads(c, adds=True, name="setwise_heads")
        if c.next_item:
            self.next_item = NextItem(c, name="next_item")
        if c.head.calibration:
            self.calibration = calibration_layer(c)

    def __call__(self, batch: Batch, deterministic: bool = True) -> jax.Array:
        """Return logits, float32 [B, N, A].

        Args:
            batch: B rows of N impressions.
            deterministic: if False, dropout is applied, which needs a `dropout` key.
        """
        # Historical layers, then the point-wise logits of item tokens.
        embedded = self.tables(batch.ids)
        h_BND, actions_BND = self._after_history(batch, embedded, deterministic)
        inputs = head_inputs(self.config, batch, embedded)
        logits_BNA = self.heads(h_BND, deterministic, inputs)
        if self.config.next_item and (self.is_initializing() or not deterministic):
            self.sow(LOSSES, "next_item_loss", self._next_item_loss(actions_BND, batch))

        # Set-wise layers over N item tokens.
        if self.config.set_depth:
            mask = session_mask(batch.member, batch.session)
            logits_BNA += self._setwise_logits(h_BND, mask, deterministic, inputs)
        features_BNW = self._calibration_features(batch, embedded)
        return self._calibrated(logits_BNA, features_BNW, inputs)

    def next_item_queries(self, batch: Batch) -> jax.Array:
        """Return the query of the item after each impression, float32 [B, N, E].

        The logit of an item is the dot product of the query and the item's row.
        """
        _, actions_BND = self._after_history(batch, self.tables(batch.ids), True)
        assert actions_BND is not None
        queries_BNE: jax.Array = self.next_item(actions_BND)
        return queries_BNE

    def encode(self, batch: Batch) -> KeyValues | None:
        """Return the keys and values of a batch with one member per row, [L, B, N, 2, H, K] each.

        This is the training program, with its kernels; without historical layers the result is
        None.
        """
        if not self.config.depth:
            return None
        h_BTD = self._tokens(batch, self.tables(batch.ids), deterministic=True)
        mask = history_mask(batch.member, batch.session, self.config.mask)
        coordinates = _coordinates(self.config, batch, tokens=2)
        kept = self.history_layers(h_BTD, mask, coordinates, True, keep=True)[1]
        return _by_impression(kept)

    def extend(self, batch: Batch, history: History) -> KeyValues | None:
        """Return the keys and values of N new impressions, which also see their part of a history.

        Args:
            batch: new impressions of one member per row.
            history: what the model keeps of the member's earlier impressions.
        """
        if not self.config.depth:
            return None
        h_BTD = self._tokens(batch, self.tables(batch.ids), deterministic=True)
        mask = history_mask(batch.member, batch.session, self.config.mask)
        coordinates = _coordinates(self.config, batch, tokens=2)
        past = self._past(history, tokens=2)
        kept = self.history_layers(h_BTD, mask, coordinates, True, past, keep=True)[1]
        return _by_impression(kept)

    def score(self, candidates: Batch, history: History) -> Scores:
        """Return the point-wise scores of candidates, each as a new session of its own.

        Args:
            candidates: C candidates of a request in each row; their labels are not used.
            history: what the model keeps of the member's earlier impressions.
        """
        c = self.config
        embedded = self.tables(candidates.ids)
        h_BCD = self._positioned(self.item_tokens(candidates, embedded), candidates)
        if c.depth:
            h_BCD = self._read_history(h_BCD, candidates, history)
        inputs = head_inputs(c, candidates, embedded)
        logits_BCA = self.heads(h_BCD, inputs=inputs)
        features_BCW = self._calibration_features(candidates, embedded)
        setwise = SetInput(h_BCD, logits_BCA, features_BCW, inputs) if c.set_depth else None
        return Scores(
            logits_BCA=self._calibrated(logits_BCA, features_BCW, inputs),
            valid_BC=candidates.member > 0,
            setwise=setwise,
        )

    def score_set(self, inputs: SetInput, valid: jax.Array) -> jax.Array:
        """Return calibrated logits of candidates that see each other, float32 [B, C, A].

        Args:
            inputs: from the scores of the candidates.
            valid: bool [B, C]; padding is at the end of a row.
        """
        member = valid.astype(jnp.int32)
        mask = session_mask(member, jnp.zeros_like(member))
        added_BCA = self._setwise_logits(inputs.hidden_BCD, mask, True, inputs.heads)
        logits_BCA = inputs.logits_BCA + added_BCA
        return self._calibrated(logits_BCA, inputs.features_BCW, inputs.heads)

    def _after_history(
        self, batch: Batch, embedded: Embedded, deterministic: bool
    ) -> tuple[jax.Array, jax.Array | None]:
        """Return item tokens and action tokens after the historical layers, [B, N, D] each.

        There are T = 2N tokens. Subclasses without action tokens return None for them.
        """
        h_BTD = self._tokens(batch, embedded, deterministic)
        if self.config.depth:
            mask = history_mask(batch.member, batch.session, self.config.mask)
            h_BTD, _ = self.history_layers(
                h_BTD, mask, _coordinates(self.config, batch, tokens=2), deterministic
            )
        return h_BTD[:, 0::2], h_BTD[:, 1::2]

    def _read_history(self, h_BCD: jax.Array, candidates: Batch, history: History) -> jax.Array:
        """Return the item tokens of candidates after the historical layers, [B, C, D]."""
        past = self._past(history, tokens=1)
        coordinates = _coordinates(self.config, candidates, tokens=1)
        if self.config.position == "relative_session":
            coordinates = candidates.session[:, :1]  # all candidates are of one session
        result: jax.Array = self.history_layers(h_BCD, None, coordinates, True, past)[0]
        return result

    def _tokens(self, batch: Batch, embedded: Embedded, deterministic: bool) -> jax.Array:
        """Return the item and action tokens of a batch, interleaved, [B, 2N, D]."""
        items_BND = self.item_tokens(batch, embedded)
        actions_BND = self.action_tokens(batch, embedded)
        if self.config.action_token == "actions_and_item":
            actions_BND += items_BND
        h_BN2D = self._positioned(jnp.stack([items_BND, actions_BND], axis=2), batch)
        b, n = batch.member.shape
        h_BTD: jax.Array = self.dropout(
            h_BN2D.reshape(b, 2 * n, self.config.width), deterministic=deterministic
        )
        return h_BTD

    def _positioned(self, h: jax.Array, batch: Batch) -> jax.Array:
        """Add learned positions, if the model has them, to tokens [B, N, D] or [B, N, 2, D]."""
        if self.config.position != "learned":
            return h
        # Positions count sessions from the oldest one, so a target after p sessions has position p
        # in training and in serving. Positions of impressions would reveal the display rank.
        position = jnp.minimum(batch.session, self.config.max_sessions - 1)
        rows_BND = self.positions[position]
        return h + (rows_BND if h.ndim == 3 else rows_BND[:, :, None]).astype(h.dtype)

    def _next_item_loss(self, h_BND: jax.Array | None, batch: Batch) -> jax.Array:
        """Return the loss of the next item, from the action tokens [B, N, D]."""
        assert h_BND is not None
        name = self.config.next_item
        rows_VE: jax.Array = self.tables.get_variable("params", escape(self.config.table_of(name)))
        query_BNE = self.next_item(h_BND)
        return next_item_loss(query_BNE, rows_VE, batch.ids[name], batch.member, batch.weight)

    def _past(self, history: History, tokens: int) -> Past:
        """Return the history in tokens, as seen by the `tokens` tokens of each new impression."""
        end = 2 * history.end
        return Past(
            kept=KeyValues(*(x.reshape(*x.shape[:2], -1, *x.shape[4:]) for x in history.kept)),
            length=jnp.repeat(end, tokens, axis=1) if tokens > 1 else end,
            position=_coordinates(self.config, history, tokens=2),
        )

    def _setwise_logits(
        self, h_BND: jax.Array, mask: Mask, deterministic: bool, inputs: HeadInputs
    ) -> jax.Array:
        """Return what set-wise layers add to the point-wise logits, float32 [B, N, A]."""
        h_BND, _ = self.setwise_layers(h_BND, mask, None, deterministic)
        logits_BNA: jax.Array = self.setwise_heads(h_BND, deterministic, inputs)
        return logits_BNA

    def _calibration_features(self, batch: Batch, embedded: Embedded) -> jax.Array | None:
        parts = feature_parts(self.config, batch, embedded, outcome=False)
        return calibration_input(self.config, parts)

    def _calibrated(
        self, logits: jax.Array, features: jax.Array | None, inputs: HeadInputs
    ) -> jax.Array:
        """Apply the calibration, if the model has one."""
        if not self.config.head.calibration:
            return logits
        result: jax.Array = self.calibration(logits, features, inputs.post)
        return result


def _by_impression(kept: KeyValues | None) -> KeyValues:
    """Reshape keys and values [L, B, 2N, H, K] to [L, B, N, 2, H, K]."""
    assert kept is not None
    return KeyValues(*(x.reshape(*x.shape[:2], -1, 2, *x.shape[3:]) for x in kept))


def _coordinates(
    config: ModelConfig, impressions: Batch | History, tokens: int
) -> jax.Array | None:
    """Return the coordinates of impressions for the relative bias, [B, tokens x N], or None."""
    if config.position == "relative_session":
        coordinates = impressions.session
    elif config.position == "relative_time":
        coordinates = impressions.time
    else:
        return None
    return jnp.repeat(coordinates, tokens, axis=1) if tokens > 1 else coordinates


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
    gates = 2 * d * d * (sublayers * config.gates_branches + 3 * config.gates_attention)
    ffn = 2 * {"gelu": 2, "swiglu": 3, "none": 0}[config.ffn] * d * f
    tokens = {"history": config.history_tokens * n * config.depth, "setwise": n * config.set_depth}
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
        "next_item": next_item_flops(config, n),
    }
