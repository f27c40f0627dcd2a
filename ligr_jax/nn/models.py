"""The kinds of model: all are called alike, `model(batch, deterministic) -> logits [B, N, A]`."""

from collections.abc import Callable
from typing import NamedTuple

from flax import linen as nn

from ligr_jax.config import ModelConfig
from ligr_jax.nn import hstu, ligr, wukong
from ligr_jax.nn.work import Work


class Kind(NamedTuple):
    """module: made from a configuration. forward_flops: operations of its matrix products, by part;
    `ligr_jax.nn.flops`."""

    module: Callable[[ModelConfig], nn.Module]
    forward_flops: Callable[[ModelConfig, Work], dict[str, float]]


MODELS = {
    "ligr": Kind(ligr.LiGR, ligr.forward_flops),
    "hstu": Kind(hstu.HSTU, hstu.forward_flops),
    "wukong": Kind(wukong.Wukong, wukong.forward_flops),
}


def make_model(config: ModelConfig) -> nn.Module:
    """The model of a configuration."""
    return MODELS[config.kind].module(config)
