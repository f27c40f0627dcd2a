"""Configuration of `model.kind=hyformer`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class HyFormerConfig:
    """Layers of HyFormer (arXiv:2601.12681)."""

    encoder: Literal["causal", "swiglu"] = "causal"
    """Encoder of the history in each layer: `causal` is a transformer layer, `swiglu` a
    feed-forward layer alone, by which history tokens do not see each other."""
    boost: Literal["rankmixer", "paper"] = "rankmixer"
    """Layer that mixes queries and candidate tokens: `rankmixer` has a norm and a residual for each
    of its two halves, as in UniRank; `paper` has no norms, and one residual around both."""
