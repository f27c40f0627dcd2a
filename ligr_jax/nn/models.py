"""The kinds of model. All have one signature: model(batch, deterministic) -> logits [B, N, A]."""

from collections.abc import Callable
from typing import NamedTuple

from flax import linen as nn

from ligr_jax.config import ModelConfig
from ligr_jax.nn import hstu, ligr, lirank, wukong
from ligr_jax.nn.work import Work


class ModelKind(NamedTuple):
    """A kind of model.

    module: makes the Flax module of a configuration.
    forward_flops: counts the FLOPs of its matrix products, by part; see `ligr_jax.cost.flops`.
    """

    module: Callable[[ModelConfig], nn.Module]
    forward_flops: Callable[[ModelConfig, Work], dict[str, float]]


MODELS = {
    "ligr": ModelKind(module=ligr.LiGR, forward_flops=ligr.ligr_flops),
    "hstu": ModelKind(module=hstu.HSTU, forward_flops=hstu.hstu_flops),
    "wukong": ModelKind(module=wukong.Wukong, forward_flops=wukong.wukong_flops),
    "lirank": ModelKind(module=lirank.LiRank, forward_flops=lirank.lirank_flops),
}


def make_model(config: ModelConfig) -> nn.Module:
    """Return the Flax module of a configuration; `config.kind` selects the kind."""
    return MODELS[config.kind].module(config)
