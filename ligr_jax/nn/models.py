"""The kinds of model. All have one signature: model(batch, deterministic) -> logits [B, N, A]."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from flax import linen as nn

from ligr_jax.config import ModelConfig
from ligr_jax.nn import hstu, ligr, ligr_streams, lirank, onetrans, ultra, wukong
from ligr_jax.nn.streams import causal_pairs
from ligr_jax.nn.work import Work
from ligr_jax.ops.masks import allowed_pairs, history_mask, session_mask

Pairs = Callable[[ModelConfig, jax.Array, jax.Array], dict[str, jax.Array]]


class ModelKind(NamedTuple):
    """A kind of model.

    module: makes the Flax module of a configuration.
    forward_flops: counts the FLOPs of its matrix products, by part; see `ligr_jax.cost.flops`.
    pairs: counts `stream_pairs` and `range_pairs` of `Work` for member and session [B, N]; None
        for kinds of one stream.
    """

    module: Callable[[ModelConfig], nn.Module]
    forward_flops: Callable[[ModelConfig, Work], dict[str, float]]
    pairs: Pairs | None = None


MODELS = {
    "ligr": ModelKind(module=ligr.LiGR, forward_flops=ligr.ligr_flops),
    "ligr_streams": ModelKind(
        module=ligr_streams.LiGRStreams,
        forward_flops=ligr_streams.ligr_streams_flops,
        pairs=causal_pairs,
    ),
    "onetrans": ModelKind(
        module=onetrans.OneTrans,
        forward_flops=onetrans.onetrans_flops,
        pairs=causal_pairs,
    ),
    "ultra": ModelKind(
        module=ultra.UltraHSTU, forward_flops=ultra.ultra_flops, pairs=ultra.ultra_pairs
    ),
    "hstu": ModelKind(module=hstu.HSTU, forward_flops=hstu.hstu_flops),
    "wukong": ModelKind(module=wukong.Wukong, forward_flops=wukong.wukong_flops),
    "lirank": ModelKind(module=lirank.LiRank, forward_flops=lirank.lirank_flops),
}


def make_model(config: ModelConfig) -> nn.Module:
    """Return the Flax module of a configuration; `config.kind` selects the kind."""
    return MODELS[config.kind].module(config)


def attention_pairs(
    config: ModelConfig, member: jax.Array, session: jax.Array
) -> dict[str, jax.Array]:
    """Count the attention pairs of a batch that the masks of a model allow.

    Args:
        config: the model.
        member, session: int32 [B, N], as in `Batch`.

    Returns:
        float32 [] by field of `Work`.
    """
    counts = {
        "history_pairs": allowed_pairs(history_mask(member, session, config.mask)),
        "set_pairs": allowed_pairs(session_mask(member, session)),
    }
    of_streams = MODELS[config.kind].pairs
    return counts if of_streams is None else counts | of_streams(config, member, session)
