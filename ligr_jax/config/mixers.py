"""Configuration of the kinds that mix tokens: RankMixer and TokenMixer-Large."""

from dataclasses import dataclass
from typing import Literal

from ligr_jax.config.errors import require


@dataclass(frozen=True)
class RankMixerConfig:
    """Layers of `model.kind=rankmixer` (arXiv:2507.15551)."""

    norm: Literal["pre", "post"] = "pre"
    """Place of the norms: `post` follows the residual sum, as published."""


@dataclass(frozen=True)
class TokenMixerConfig:
    """Layers of `model.kind=tokenmixer` (TokenMixer-Large, arXiv:2602.06563)."""

    reading: Literal["residual", "revert"] = "residual"
    """What the second half of a layer is added to: `residual` is the output of the first half, as
    in the paper's figure; `revert` is the input of the layer, as in the paper's equation."""
    residual_interval: int = 2
    """s: the output of layer l - s is added to that of layer l = s, 2s, .., except the last; 0 for
    no such residuals."""
    auxiliary_weight: float = 0.1
    """Weight of the cross-entropy of heads that read the layers with such residuals."""
    global_token: bool = True
    """Whether the first candidate token is a projection of all item features."""
    down_init: float = 0.01
    """Initial standard deviation of down projections, relative to the usual one."""
    experts: int = 1
    """X, experts of each token; each has width F / X."""
    chosen: int = 1
    """k, experts that are computed for a token, in addition to a shared one of the same width."""

    def __post_init__(self) -> None:
        for name in ("residual_interval", "auxiliary_weight"):
            value = getattr(self, name)
            require(value >= 0, f"model.tokenmixer.{name}={value} must be >= 0")
        require(self.down_init > 0, f"model.tokenmixer.down_init={self.down_init} must be > 0")
        require(
            1 <= self.chosen <= self.experts,
            f"model.tokenmixer.chosen={self.chosen} must be in 1..model.tokenmixer.experts="
            f"{self.experts}",
        )
