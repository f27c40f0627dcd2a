"""Wukong: stacked factorization machines over embeddings (Zhang et al. 2024, arXiv:2403.02545).

A layer maps n embeddings X [n, D] to n_F + n_L embeddings of the same width:

    FM  = X X^T Y                              all inner products, projected to rank k
    FMB = reshape(MLP(LN(flatten(FM))))        n_F embeddings
    LCB = W_L X                                n_L embeddings
    X  <- LN(concat(FMB, LCB) + X)             X is multiplied by a matrix if n is not n_F + n_L

X X^T Y is computed from the right, in O(n k D). The first X holds a projection of each item feature
and of the sizes of the member's history, the item token, and the pooled history
(`ligr_jax.nn.history`). After the last layer, an MLP and LiGR's heads compute the logits. There is
no positional encoding, and the items of a session do not see each other.

`model.wukong.dual_path` (LiGR A.2) adds an element-wise path parallel to the layers: all numbers
and all table rows, concatenated, go through two cross layers of DCNv2 (Wang et al. 2020),

    x <- x_0 * (W x + b) + x

and are concatenated to the output of the layers before the MLP. Numbers then have no projections in
the first X.

Letters: n embeddings of an impression; k the rank of FM.
"""

import itertools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
from flax import linen as nn

from ligr_jax.config import ModelConfig, escape
from ligr_jax.data.batch import Batch
from ligr_jax.nn.cross import Cross
from ligr_jax.nn.features import (
    ActionTokens,
    ItemTokens,
    feature_parts,
    feature_width,
    feature_widths,
    history_labels,
)
from ligr_jax.nn.head_inputs import head_inputs
from ligr_jax.nn.heads import Heads, calibrated, calibration_flops, heads_flops
from ligr_jax.nn.history import SPANS, PooledInput, pooled_history, pooled_past
from ligr_jax.nn.linear import Linear
from ligr_jax.nn.mlp import MLP
from ligr_jax.nn.serving import History, Scores
from ligr_jax.nn.work import Work
from ligr_jax.tables.table import TABLES, Tables

_CROSSES = 2
_COUNTS = "history counts"  # treated like a feature


class Wukong(nn.Module):
    """Logits of every action at every impression; impressions do not see each other."""

    config: ModelConfig

    def __call__(self, batch: Batch, deterministic: bool = True) -> jax.Array:
        """Return logits, float32 [B, N, A].

        Args:
            batch: B rows of N impressions.
            deterministic: if False, dropout is applied, which needs a `dropout` key.
        """
        logits_BNA: jax.Array = self._ranked(batch, deterministic)[0]
        return logits_BNA

    def encode(self, batch: Batch) -> PooledInput:
        """Return what the pooled history sums, for every impression of a batch, [1, B, N, ..]."""
        pooled_input = self._ranked(batch, deterministic=True)[1]
        return PooledInput(*(x[None] for x in pooled_input))

    def extend(self, batch: Batch, history: History) -> PooledInput:
        """Return what the pooled history sums, which does not depend on earlier impressions."""
        return self.encode(batch)

    def score(self, candidates: Batch, history: History) -> Scores:
        """Return the scores of candidates, which share the pooled history of their member.

        Args:
            candidates: C candidates of a request in each row; their labels are not used.
            history: what the model keeps of the member's earlier impressions.
        """
        logits_BCA = self._ranked(candidates, True, history)[0]
        return Scores(logits_BCA=logits_BCA, valid_BC=candidates.member > 0)

    @nn.compact
    def _ranked(
        self, batch: Batch, deterministic: bool, history: History | None = None
    ) -> tuple[jax.Array, PooledInput]:
        """Return logits [B, N, A], and the input of pooling; what is pooled is in `history`."""
        c = self.config
        dtype = jnp.dtype(c.dtype)

        # The first X: projected features and history counts, the item token, the pooled history.
        embedded = Tables(c, name=TABLES)(batch.ids)
        items_BND = ItemTokens(c, name="items")(batch, embedded)
        actions_BND = ActionTokens(c, name="actions")(batch, embedded)
        new = PooledInput(items_BND, actions_BND, history_labels(c, batch))
        if history is None:
            pooled_BNnD, counts = pooled_history(batch, new, c.mask)
        else:
            pooled_BNnD, counts = (
                jnp.broadcast_to(x, (*batch.member.shape, *x.shape[2:]))
                for x in pooled_past(
                    PooledInput(*(x[0] for x in history.kept)), history.session, history.end
                )
            )
        parts = feature_parts(c, batch, embedded, outcome=False) | {_COUNTS: counts}
        embedded_parts, elements = _paths(c)
        projections = Projections(c, name="tokens")
        tokens_BNnD = projections({name: parts[name] for name in embedded_parts})
        x_BNnD = jnp.concatenate([tokens_BNnD, items_BND[..., None, :], pooled_BNnD], axis=2)
        x_BNnD = nn.Dropout(c.dropout)(x_BNnD, deterministic=deterministic)

        x_BNnD = WukongStack(c, name="layers")(x_BNnD, deterministic)
        x = x_BNnD.reshape(*x_BNnD.shape[:2], -1)

        # The element-wise path, then the head.
        if c.wukong.dual_path:
            numbers = jnp.concatenate([parts[name] for name in elements], axis=-1).astype(dtype)
            crossed = numbers
            for i in range(_CROSSES):
                crossed = Cross(dtype=dtype, name=f"cross_{i}")(numbers, crossed)
            x = jnp.concatenate([x, crossed], axis=-1)
        x = MLP([c.width * w for w in c.wukong.head], dtype=dtype, name="mlp")(x)
        inputs = head_inputs(c, batch, embedded)
        logits_BNA = Heads(c, name="heads")(x, deterministic, inputs)
        return calibrated(c, logits_BNA, parts, inputs.post), new


class Projections(nn.Module):
    """A linear map of each named part [B, N, width] to [B, N, D], stacked: [B, N, parts, D]."""

    config: ModelConfig

    @nn.compact
    def __call__(self, parts: dict[str, jax.Array]) -> jax.Array:
        c = self.config
        dtype = jnp.dtype(c.dtype)
        return jnp.stack(
            [
                Linear(c.width, use_bias=True, dtype=dtype, name=f"from_{escape(name)}")(part)
                for name, part in parts.items()
            ],
            axis=2,
        )


class WukongStack(nn.Module):
    """`depth` layers in sequence. They are not scanned: the first has a shape of its own."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BNnD: jax.Array, deterministic: bool) -> jax.Array:
        """Return [B, N, n_F + n_L, D], for x [B, N, n, D]."""
        layer = WukongLayer
        if self.config.remat:
            layer = nn.remat(WukongLayer, static_argnums=(2,))
        for i in range(self.config.depth):
            x_BNnD = layer(self.config, name=f"layer_{i}")(x_BNnD, deterministic)
        return x_BNnD


class WukongLayer(nn.Module):
    """Factorization machines and linear compression in parallel, with a residual and a norm."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BNnD: jax.Array, deterministic: bool) -> jax.Array:
        c = self.config
        w = c.wukong
        dtype = jnp.dtype(c.dtype)
        x_BNDn = x_BNnD.swapaxes(-1, -2)  # X^T: linear maps mix the n embeddings

        # Factorization machines: X (X^T Y), flattened, through an MLP to n_F embeddings.
        projected_BNDk = Linear(w.rank, dtype=dtype, name="fm")(x_BNDn)
        fm_BNnk = jnp.einsum(
            "BNnD,BNDk->BNnk", x_BNnD, projected_BNDk, preferred_element_type=jnp.float32
        )
        flat = fm_BNnk.reshape(*x_BNnD.shape[:2], -1)
        flat = nn.LayerNorm(dtype=dtype, name="fm_norm")(flat)
        flat = MLP([c.width * width for width in w.mlp], dtype=dtype, name="mlp")(flat)
        flat = Linear(w.fm_outputs * c.width, use_bias=True, dtype=dtype, name="mlp_out")(flat)
        machines_BNnD = flat.reshape(*x_BNnD.shape[:2], w.fm_outputs, c.width)

        # Linear compression: n_L linear combinations of the embeddings.
        compressed_BNDn = Linear(w.compress_outputs, dtype=dtype, name="compress")(x_BNDn)
        out_BNnD = jnp.concatenate([machines_BNnD, compressed_BNDn.swapaxes(-1, -2)], axis=2)
        out_BNnD = nn.Dropout(c.dropout)(out_BNnD, deterministic=deterministic)

        if out_BNnD.shape != x_BNnD.shape:
            residual = Linear(out_BNnD.shape[2], dtype=dtype, name="residual")
            x_BNnD = residual(x_BNDn).swapaxes(-1, -2)
        result: jax.Array = nn.LayerNorm(dtype=dtype, name="norm")(out_BNnD + x_BNnD)
        return result


def wukong_flops(config: ModelConfig, work: Work) -> dict[str, float]:
    """Return the forward FLOPs of Wukong, by part; see `ligr_jax.cost.flops.forward_flops`.

    Running sums of the pooled history are not matrix products and do not count.
    """
    d = config.width
    a = len(config.actions)
    w = config.wukong
    embedded_parts, elements = _paths(config)
    item, outcome = (sum(feature_widths(config, known)) for known in (False, True))
    outputs = w.fm_outputs + w.compress_outputs
    embeddings = len(embedded_parts) + 1 + SPANS * (2 + a)
    sizes = [embeddings] + [outputs] * (config.depth - 1)  # n of each layer
    crossed = sum(elements.values()) if w.dual_path else 0
    hidden = [outputs * d + crossed, *(d * h for h in w.head)]
    per_impression = {
        "inputs": d * (item + outcome + 2 * a + 1 + sum(embedded_parts.values())),
        "fm": sum(2 * n * d * w.rank for n in sizes),
        "mlp": sum(_chain([n * w.rank, *(d * h for h in w.mlp), w.fm_outputs * d]) for n in sizes),
        "compress": sum(n * d * w.compress_outputs for n in sizes),
        "residual": sum(n * d * outputs for n in sizes if n != outputs),
        "cross": _CROSSES * crossed**2,
        "heads": _chain(hidden)
        + (heads_flops(config, hidden[-1]) + calibration_flops(config)) // 2,
    }
    return {part: 2 * work.impressions * products for part, products in per_impression.items()}


def _paths(config: ModelConfig) -> tuple[dict[str, int], dict[str, int]]:
    """Return the widths of the parts that are projected, and of those of the element-wise path."""
    features = {n: f for n, f in sorted(config.features.items()) if f.is_item}
    widths = {n: feature_width(config, f) for n, f in features.items()}
    counts = {_COUNTS: SPANS * (1 + len(config.actions))}
    if not config.wukong.dual_path:
        return widths | counts, {}
    embedded_parts = {n: w for n, w in widths.items() if features[n].kind != "numeric"}
    elements = {n: w for n, w in widths.items() if features[n].kind != "vector"}
    return embedded_parts, elements | counts


def _chain(widths: Iterable[int]) -> int:
    """Count the multiply-adds of linear maps from each width to the next."""
    return sum(a * b for a, b in itertools.pairwise(widths))
