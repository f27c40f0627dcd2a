"""The kinds of model: all are called alike, `model(batch, deterministic) -> logits [B, N, A]`."""

from collections.abc import Callable
from typing import NamedTuple

from flax import linen as nn

from ligr_jax.config import ModelConfig
from ligr_jax.nn import hstu, ligr, lirank, wukong
from ligr_jax.nn.work import Work


class ModelKind(NamedTuple):
    """module: made from a configuration. forward_flops: operations of its matrix products, by part;
    `ligr_jax.nn.flops`."""

    module: Callable[[ModelConfig], nn.Module]
    forward_flops: Callable[[ModelConfig, Work], dict[str, float]]


MODELS = {
    "ligr": ModelKind(ligr.LiGR, ligr.ligr_flops),
    "hstu": ModelKind(hstu.HSTU, hstu.hstu_flops),
    "wukong": ModelKind(wukong.Wukong, wukong.wukong_flops),
    "lirank": ModelKind(lirank.LiRank, lirank.lirank_flops),
}


def make_model(config: ModelConfig) -> nn.Module:
    """The model of a configuration."""
    return MODELS[config.kind].module(config)
