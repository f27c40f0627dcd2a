"""Wukong: stacked factorization machines over embeddings (Zhang et al. 2024, arXiv:2403.02545).

A layer makes n_F + n_L embeddings of D numbers of the n in X [n, D]:

    FM  = X X^T Y                              all inner products, projected to rank k
    FMB = reshape(MLP(LN(flatten(FM))))        n_F embeddings
    LCB = W_L X                                n_L embeddings
    X  <- LN(concat(FMB, LCB) + X)             X by a matrix where n is not n_F + n_L

X X^T Y is computed from the right, in O(n k D). The first X holds an embedding of each item
feature, by a projection of its own; the item token, of all of them together; the member's history
(`ligr_jax.nn.history`); and the sizes of that history. After the last layer an MLP and LiGR's heads
give the logits. There are no positions, and items of a session do not see each other.

With `model.wukong.dual_path` (LiGR A.2) an element-wise path stands beside the layers: all numbers
and all table rows, concatenated, through two cross layers of DCNv2 (Wang et al. 2020),

    x <- x_0 * (W x + b) + x

joined to the layers' output before the MLP. Numbers are then no embeddings of their own.
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
)
from ligr_jax.nn.heads import Heads, calibrated, calibration_flops, heads_flops
from ligr_jax.nn.history import SPANS, pooled_history
from ligr_jax.nn.linear import Linear
from ligr_jax.nn.mlp import MLP
from ligr_jax.nn.work import Work
from ligr_jax.tables.table import TABLES, Tables

_CROSSES = 2
_COUNTS = "history counts"  # a part beside the features


class Wukong(nn.Module):
    """Logits of every action at every impression of a batch, each impression for itself."""

    config: ModelConfig

    @nn.compact
    def __call__(self, batch: Batch, deterministic: bool = True) -> jax.Array:
        """Returns float32 [B, N, A]; `deterministic=False` wants a `dropout` key."""
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        embedded = Tables(c, name=TABLES)(batch.ids)
        items = ItemTokens(c, name="items")(batch, embedded)
        actions = ActionTokens(c, name="actions")(batch, embedded)
        pooled, counts = pooled_history(batch, items, actions, c.mask)
        parts = feature_parts(c, batch, embedded, outcome=False) | {_COUNTS: counts}
        embedded_parts, elements = _paths(c)
        tokens = Projections(c, name="tokens")({name: parts[name] for name in embedded_parts})
        x = jnp.concatenate([tokens, items[..., None, :], pooled], axis=2)
        x = nn.Dropout(c.dropout)(x, deterministic=deterministic)
        x = Layers(c, name="layers")(x, deterministic)
        x = x.reshape(*x.shape[:2], -1)
        if c.wukong.dual_path:
            numbers = jnp.concatenate([parts[name] for name in elements], axis=-1).astype(dtype)
            crossed = numbers
            for i in range(_CROSSES):
                crossed = Cross(dtype, name=f"cross_{i}")(numbers, crossed)
            x = jnp.concatenate([x, crossed], axis=-1)
        x = MLP([c.width * w for w in c.wukong.head], dtype=dtype, name="mlp")(x)
        return calibrated(c, Heads(c, name="heads")(x, deterministic), parts)


class Projections(nn.Module):
    """An embedding [B, N, D] of each named part [B, N, W], stacked: [B, N, parts, D]."""

    config: ModelConfig

    @nn.compact
    def __call__(self, parts: dict[str, jax.Array]) -> jax.Array:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        return jnp.stack(
            [
                Linear(c.width, use_bias=True, dtype=dtype, name=f"from_{escape(name)}")(part)
                for name, part in parts.items()
            ],
            axis=2,
        )


class Layers(nn.Module):
    """`depth` layers, one after the other: the first has another shape than the rest."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        """x: [B, N, n, D]; returns [B, N, n_F + n_L, D]."""
        layer = nn.remat(Layer, static_argnums=(2,)) if self.config.remat else Layer
        for i in range(self.config.depth):
            x = layer(self.config, name=f"layer_{i}")(x, deterministic)
        return x


class Layer(nn.Module):
    """Factorization machines beside linear compression, with a residual and a norm."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        c, w, dtype = self.config, self.config.wukong, jnp.dtype(self.config.dtype)
        columns = x.swapaxes(-1, -2)  # [B, N, D, n]: X^T, whose last axis matrices mix

        projected = Linear(w.rank, dtype=dtype, name="fm")(columns)  # X^T Y
        fm = jnp.einsum("BNnD,BNDk->BNnk", x, projected, preferred_element_type=jnp.float32)
        flat = fm.reshape(*x.shape[:2], -1)
        flat = nn.LayerNorm(dtype=dtype, name="fm_norm")(flat)
        flat = MLP([c.width * width for width in w.mlp], dtype=dtype, name="mlp")(flat)
        flat = Linear(w.fm_outputs * c.width, use_bias=True, dtype=dtype, name="mlp_out")(flat)
        machines = flat.reshape(*x.shape[:2], w.fm_outputs, c.width)

        compressed = Linear(w.compress_outputs, dtype=dtype, name="compress")(columns)
        out = jnp.concatenate([machines, compressed.swapaxes(-1, -2)], axis=2)
        out = nn.Dropout(c.dropout)(out, deterministic=deterministic)
        if out.shape != x.shape:
            x = Linear(out.shape[2], dtype=dtype, name="residual")(columns).swapaxes(-1, -2)
        return nn.LayerNorm(dtype=dtype, name="norm")(out + x)


def wukong_flops(config: ModelConfig, work: Work) -> dict[str, float]:
    """`ligr_jax.nn.flops.forward_flops` of Wukong; running sums are no products."""
    d, a, w = config.width, len(config.actions), config.wukong
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
    """Parts that become embeddings, and parts of the element-wise path: their widths."""
    features = {n: f for n, f in sorted(config.features.items()) if not f.outcome}
    widths = {n: feature_width(config, f) for n, f in features.items()}
    counts = {_COUNTS: SPANS * (1 + len(config.actions))}
    if not config.wukong.dual_path:
        return widths | counts, {}
    embedded_parts = {n: w for n, w in widths.items() if features[n].kind != "numeric"}
    elements = {n: w for n, w in widths.items() if features[n].kind != "vector"}
    return embedded_parts, elements | counts


def _chain(widths: Iterable[int]) -> int:
    """Multiply-adds of linear maps from each width to the next."""
    return sum(a * b for a, b in itertools.pairwise(widths))
