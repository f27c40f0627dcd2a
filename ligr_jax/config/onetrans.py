"""Configuration of `model.kind=onetrans`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class OneTransConfig:
    """Choices of a OneTrans layer (arXiv:2510.26104) that its paper leaves open."""

    activation: Literal["silu", "relu"] = "silu"
    """Activation of the feed-forward layers, which have no gate: TAAC's is `silu`, UniRank's is
    `relu`."""
