"""The kinds of model. All have one signature: model(batch, deterministic) -> logits [B, N, A]."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from flax import linen as nn

from ligr_jax.config import ModelConfig
from ligr_jax.nn import (
    action_values,
    hstu,
    hyformer,
    late_actions,
    ligr,
    ligr_streams,
    lirank,
    onetrans,
    rankmixer,
    tokenmixer,
    ultra,
    wukong,
)
from ligr_jax.nn.history_token import history_token_pairs
from ligr_jax.nn.streams import causal_pairs
from ligr_jax.nn.work import Work
from ligr_jax.ops.masks import allowed_pairs, history_mask, session_mask

Pairs = Callable[[ModelConfig, jax.Array, jax.Array], dict[str, jax.Array]]


class ModelKind(NamedTuple):
    """A kind of model.

    module: makes the Flax module of a configuration.
    forward_flops: counts the FLOPs of its matrix products, by part; see `ligr_jax.cost.flops`.
    pairs: counts the pairs of `Work` for member and session [B, N], where they differ from those of
        interleaved item and action tokens; None if none does.
    """

    module: Callable[[ModelConfig], nn.Module]
    forward_flops: Callable[[ModelConfig, Work], dict[str, float]]
    pairs: Pairs | None = None


# LiGR, by `model.actions_as`.
_LIGR = {
    "tokens": ModelKind(module=ligr.LiGR, forward_flops=ligr.ligr_flops),
    "values": ModelKind(
        module=action_values.ActionValueLiGR,
        forward_flops=action_values.action_value_flops,
        pairs=action_values.item_token_pairs,
    ),
    "late_values": ModelKind(
        module=late_actions.LateActionLiGR,
        forward_flops=late_actions.late_action_flops,
        pairs=action_values.item_token_pairs,
    ),
}
MODELS = {
    "ligr": _LIGR["tokens"],
    "ligr_streams": ModelKind(
        module=ligr_streams.LiGRStreams,
        forward_flops=ligr_streams.ligr_streams_flops,
        pairs=causal_pairs,
    ),
    "hyformer": ModelKind(
        module=hyformer.HyFormer,
        forward_flops=hyformer.hyformer_flops,
        pairs=causal_pairs,
    ),
    "onetrans": ModelKind(
        module=onetrans.OneTrans,
        forward_flops=onetrans.onetrans_flops,
        pairs=causal_pairs,
    ),
    "rankmixer": ModelKind(
        module=rankmixer.RankMixer,
        forward_flops=rankmixer.rankmixer_flops,
        pairs=history_token_pairs,
    ),
    "tokenmixer": ModelKind(
        module=tokenmixer.TokenMixer,
        forward_flops=tokenmixer.tokenmixer_flops,
        pairs=history_token_pairs,
    ),
    "ultra": ModelKind(
        module=ultra.UltraHSTU, forward_flops=ultra.ultra_flops, pairs=ultra.ultra_pairs
    ),
    "hstu": ModelKind(module=hstu.HSTU, forward_flops=hstu.hstu_flops),
    "wukong": ModelKind(module=wukong.Wukong, forward_flops=wukong.wukong_flops),
    "lirank": ModelKind(module=lirank.LiRank, forward_flops=lirank.lirank_flops),
}


def model_kind(config: ModelConfig) -> ModelKind:
    """Return the kind of a configuration; `kind`, and `actions_as` of LiGR, select it."""
    return _LIGR[config.actions_as] if config.kind == "ligr" else MODELS[config.kind]


def make_model(config: ModelConfig) -> nn.Module:
    """Return the Flax module of a configuration; see `model_kind`."""
    return model_kind(config).module(config)


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
    of_kind = model_kind(config).pairs
    return counts if of_kind is None else counts | of_kind(config, member, session)
