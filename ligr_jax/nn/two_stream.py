"""Models of two streams: what all of them share around their layers.

A kind of model is a subclass of `TwoStream` that returns its layers. Layers have the signature

    layers(streams, view, past, deterministic, keep) -> (streams, kept)

`streams` and `view` are those of `ligr_jax.nn.streams`. `past` is what the layers kept of a history
in earlier passes, arrays [L, B, S, ..], or None. `kept` is what later passes need of the history
tokens of this pass, arrays [L, B, N, ..] with one entry per impression, or None unless `keep`.
`StreamStack` makes layers from a class of one layer with the same signature, without the axis L.

The history token of an impression is x_i + a_i, the item token and the action token of LiGR. The
logits are read from the mean of the candidate tokens.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.config import ModelConfig
from ligr_jax.data.batch import Batch
from ligr_jax.nn.candidate_tokens import CandidateTokens, candidate_token_flops
from ligr_jax.nn.features import (
    ActionTokens,
    Embedded,
    ItemTokens,
    feature_parts,
    feature_widths,
)
from ligr_jax.nn.head_inputs import head_inputs
from ligr_jax.nn.heads import (
    Heads,
    calibration_flops,
    calibration_input,
    calibration_layer,
    heads_flops,
)
from ligr_jax.nn.mup import mup_scale
from ligr_jax.nn.recompute import recompute_layers
from ligr_jax.nn.serving import History, Scores
from ligr_jax.nn.streams import PastView, Streams, View, view_of_row
from ligr_jax.tables.table import TABLES, Tables


class TwoStream(nn.Module):
    """Logits of every action at every impression, from a history stream and candidate tokens."""

    config: ModelConfig

    def make_layers(self) -> nn.Module:
        """Return the layers of the kind; see the head of this module for their signature."""
        raise NotImplementedError

    def setup(self) -> None:
        c = self.config
        self.tables = Tables(c, name=TABLES)
        self.item_tokens = ItemTokens(c, name="items")
        self.action_tokens = ActionTokens(c, name="actions")
        self.candidate_tokens = CandidateTokens(c, name="tokens")
        if c.position == "learned":
            init = nn.initializers.normal(stddev=0.02)
            self.positions = self.param("positions", init, (c.max_sessions, c.width), jnp.float32)
        self.dropout = nn.Dropout(c.dropout)
        self.layers = self.make_layers()
        self.heads = Heads(c, name="heads")
        if c.head.calibration:
            self.calibration = calibration_layer(c)

    def __call__(self, batch: Batch, deterministic: bool = True) -> jax.Array:
        """Return logits, float32 [B, N, A].

        Args:
            batch: B rows of N impressions.
            deterministic: if False, dropout is applied, which needs a `dropout` key.
        """
        embedded = self.tables(batch.ids)
        streams = self._both_streams(batch, embedded, deterministic)
        streams, _ = self._apply_layers(streams, self._row(batch), None, deterministic, False)
        return self._logits(streams, batch, embedded, deterministic)

    def encode(self, batch: Batch) -> Any:
        """Return what the layers keep of a batch with one member per row, [L, B, N, ..] each."""
        streams = Streams(self._history_stream(batch, self.tables(batch.ids), True), None)
        return self._apply_layers(streams, self._row(batch), None, True, True)[1]

    def extend(self, batch: Batch, history: History) -> Any:
        """Return what the layers keep of N new impressions, which also see a history.

        Args:
            batch: new impressions of one member per row.
            history: what the model keeps of the member's earlier impressions.
        """
        streams = Streams(self._history_stream(batch, self.tables(batch.ids), True), None)
        view = self._row(batch)._replace(ranges=None, past=self._past(history))
        return self._apply_layers(streams, view, history.kept, True, True)[1]

    def score(self, candidates: Batch, history: History) -> Scores:
        """Return the scores of candidates, each as a new session of its own.

        Args:
            candidates: C candidates of a request in each row; their labels are not used.
            history: what the model keeps of the member's earlier impressions.
        """
        embedded = self.tables(candidates.ids)
        streams = Streams(None, self._candidate_stream(candidates, embedded, True))
        view = View(
            history=None,
            ranges=None,
            position=impression_coordinates(self.config, candidates),
            past=self._past(history),
        )
        streams, _ = self._apply_layers(streams, view, history.kept, True, False)
        logits_BCA = self._logits(streams, candidates, embedded, True)
        return Scores(logits_BCA=logits_BCA, valid_BC=candidates.member > 0)

    def _apply_layers(
        self, streams: Streams, view: View, past: Any, deterministic: bool, keep: bool
    ) -> tuple[Streams, Any]:
        """Apply the layers, to each request of a row if the history depends on the request."""
        # Parameters do not depend on it.
        if self.config.streams.history == "recompute" and not self.is_initializing():
            return recompute_layers(self.layers, self.config, streams, view, past, deterministic)
        result: tuple[Streams, Any] = self.layers(streams, view, past, deterministic, keep)
        return result

    def _both_streams(self, batch: Batch, embedded: Embedded, deterministic: bool) -> Streams:
        """Return the tokens of a training row."""
        return Streams(
            history_BND=self._history_stream(batch, embedded, deterministic),
            candidates_BNMD=self._candidate_stream(batch, embedded, deterministic),
        )

    def _history_stream(self, batch: Batch, embedded: Embedded, deterministic: bool) -> jax.Array:
        """Return the history tokens x_i + a_i, [B, N, D]."""
        h_BND = self.item_tokens(batch, embedded) + self.action_tokens(batch, embedded)
        return self._stream_input(h_BND, batch, deterministic)

    def _candidate_stream(self, batch: Batch, embedded: Embedded, deterministic: bool) -> jax.Array:
        """Return the candidate tokens, [B, N, M, D]."""
        c_BNMD = self.candidate_tokens(batch, embedded)
        return self._stream_input(c_BNMD, batch, deterministic)

    def _stream_input(self, x: jax.Array, batch: Batch, deterministic: bool) -> jax.Array:
        """Return tokens [B, N, D] or [B, N, M, D] with learned positions of sessions, if the
        model has them, and dropout."""
        if self.config.position == "learned":
            position = jnp.minimum(batch.session, self.config.max_sessions - 1)
            rows_BND = self.positions[position]
            x += (rows_BND if x.ndim == 3 else rows_BND[:, :, None]).astype(x.dtype)
        result: jax.Array = self.dropout(x, deterministic=deterministic)
        return result

    def _row(self, batch: Batch) -> View:
        coordinates = impression_coordinates(self.config, batch)
        return view_of_row(self.config, batch.member, batch.session, coordinates)

    def _past(self, history: History) -> PastView:
        causal = self.config.streams.history != "session"
        return PastView(
            length=history.length if causal else history.end,
            end=history.end,
            position=impression_coordinates(self.config, history),
        )

    def _logits(
        self, streams: Streams, batch: Batch, embedded: Embedded, deterministic: bool
    ) -> jax.Array:
        """Return logits, float32 [B, N, A], from the mean of the candidate tokens."""
        assert streams.candidates_BNMD is not None
        inputs = head_inputs(self.config, batch, embedded)
        token_BND = streams.candidates_BNMD.mean(2)
        logits_BNA: jax.Array = self.heads(token_BND, deterministic, inputs)
        if self.config.head.calibration:
            parts = feature_parts(self.config, batch, embedded, outcome=False)
            features_BNW = calibration_input(self.config, parts)
            logits_BNA = self.calibration(logits_BNA, features_BNW, inputs.post)
        return logits_BNA


class StreamStack(nn.Module):
    """`depth` layers with stacked parameters, [depth, ..], as `ligr_jax.nn.blocks.Stack`.

    With `streams.windows`, the layers get the window of each as `view.window`.

    layer: a class with the fields `config` and `scale`, and the signature of layers without L.
    depth: number of layers; None for `model.depth`.
    """

    config: ModelConfig
    layer: type[nn.Module]
    depth: int | None = None

    @nn.compact
    def __call__(
        self, streams: Streams, view: View, past: Any, deterministic: bool, keep: bool
    ) -> tuple[Streams, Any]:
        """Return the streams, and what the layers keep; see the head of this module."""
        c = self.config
        unrolled = c.unroll == "yes" or (c.unroll == "auto" and jax.default_backend() == "cpu")
        layer, depth = self.layer, c.depth if self.depth is None else self.depth
        if c.remat:
            layer = nn.remat(layer, prevent_cse=unrolled, static_argnums=(4, 5))
        of_view: Any = nn.broadcast
        windows = c.streams.layer_windows(depth)
        if windows:
            view = view._replace(window=jnp.asarray(windows, jnp.int32))
            of_view = View(*[nn.broadcast] * len(View._fields))._replace(window=0)  # type: ignore[arg-type]
        layers = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(of_view, nn.broadcast if past is None else 0, nn.broadcast, nn.broadcast),
            length=depth,
            unroll=depth if unrolled else 1,
        )(c, scale=1 / mup_scale(c).depth, name="layers")
        result: tuple[Streams, Any] = layers(streams, view, past, deterministic, keep)
        return result


def stream_flops(config: ModelConfig, impressions: float) -> dict[str, float]:
    """Return the forward FLOPs of what is outside of the layers, by part.

    Args:
        config: the model.
        impressions: number of impressions.
    """
    heads = heads_flops(config, config.width) + calibration_flops(config)
    return {
        "inputs": impressions * (history_token_flops(config) + candidate_token_flops(config)),
        "heads": impressions * heads,
    }


def history_token_flops(config: ModelConfig) -> int:
    """Return the FLOPs of the history token of one impression."""
    item, outcome = (sum(feature_widths(config, outcome=known)) for known in (False, True))
    return 2 * config.width * (item + outcome + 2 * len(config.actions) + 1)


def impression_coordinates(config: ModelConfig, impressions: Batch | History) -> jax.Array | None:
    """Return the coordinates of impressions for the relative bias, [B, N], or None.

    Args:
        config: the model; `position` names the coordinate.
        impressions: the impressions.
    """
    if config.position == "relative_session":
        return impressions.session
    return impressions.time if config.position == "relative_time" else None
