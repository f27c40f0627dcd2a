"""Configuration of `model.kind=lirank`."""

from dataclasses import dataclass
from typing import Literal

from ligr_jax.config.errors import require


@dataclass(frozen=True)
class LiRankConfig:
    """LiRank's rankers (Borisyuk et al. 2024): features, history and cross layers.

    The layers after them are configured by `model.head`.
    """

    variant: Literal["feed", "ads", "jobs"] = "feed"
    """`feed` (3.1) has cross layers shared by all towers; `ads` (3.2) has cross layers and a
    parallel MLP for each group of actions; `jobs` (A.8) has cross layers for each group."""
    cross_layers: int = 2
    """Number of low-rank cross layers (3.3)."""
    rank: int = 32
    """Rank of the cross layers."""
    residual: bool = True
    """Whether a cross layer has parallel attention (residual DCN, 3.3)."""
    temperature: float = 1.0
    """Initial temperature of the attention in cross layers."""
    learned_temperature: bool = True
    """Whether the temperature is learned."""
    mlp: tuple[int, ...] = ()
    """Widths of the hidden layers after shared cross layers, or of the MLP parallel to them in
    `ads`. LiRank's large model has 3500,3500,3500,3500 (3.5)."""
    gated: bool = True
    """Whether these hidden layers have gates."""
    experts: int = 0
    """Number of experts of a sparse mixture that replaces `mlp` (3.5); 0 for no mixture."""
    chosen: int = 2
    """Number of experts that process an impression (top-k)."""
    balance: float = 0.1
    """Weight of the load-balancing losses of the mixture."""
    batch_norm: bool = True
    """Whether numeric features are batch-normalized (3.1, 6.2)."""
    history: int = 16
    """Number of the latest impressions that the history encoder reads (3.7); 0 for no encoder."""
    history_width: int = 16
    """Width of an item and of its actions in the history encoder."""
    history_heads: int = 2
    """Attention heads of the history encoder."""
    history_layers: int = 2
    """Layers of the history encoder."""
    history_last: int = 5
    """Number of the latest steps whose encodings are concatenated."""
    wide: str = ""
    """Feature with a table, usually the item id, whose last columns (one per action) start at zero
    and are added to the logits (3.9); "" for none."""

    def __post_init__(self) -> None:
        for name in ("rank", "history_width", "history_heads"):
            value = getattr(self, name)
            require(value >= 1, f"model.lirank.{name}={value} must be >= 1")
        for name in ("cross_layers", "experts", "balance", "history", "history_layers"):
            value = getattr(self, name)
            require(value >= 0, f"model.lirank.{name}={value} must be >= 0")
        require(self.temperature > 0, f"model.lirank.temperature={self.temperature} must be > 0")
        require(
            all(width >= 1 for width in self.mlp),
            f"model.lirank.mlp={','.join(map(str, self.mlp))}: hidden widths must be >= 1",
        )
        require(
            not self.history or 0 <= self.history_last <= self.history,
            f"model.lirank.history_last={self.history_last} must be in 0.."
            f"model.lirank.history={self.history}; change one of the two",
        )
        require(
            3 * self.history_width % self.history_heads == 0,
            f"3 x model.lirank.history_width={self.history_width} is not divisible by "
            f"model.lirank.history_heads={self.history_heads}; change one of the two",
        )
        if self.experts:
            require(
                1 <= self.chosen <= self.experts,
                f"model.lirank.chosen={self.chosen} must be in 1..model.lirank.experts="
                f"{self.experts}; change one of the two",
            )
            require(
                bool(self.mlp),
                f"model.lirank.experts={self.experts} have the hidden layers of model.lirank.mlp, "
                "which is empty; set it, e.g. to 128",
            )
            require(
                self.variant == "feed",
                f"model.lirank.experts={self.experts} needs model.lirank.variant=feed, not "
                f"{self.variant}; set model.lirank.experts=0",
            )
        require(
            self.variant != "jobs" or not self.mlp,
            f"model.lirank.mlp={','.join(map(str, self.mlp))}: variant=jobs has hidden layers "
            "only in its towers; leave it empty and set model.head.kind=mlp and model.head.widths",
        )
        require(
            bool(self.mlp) or self.variant != "ads",
            "model.lirank.variant=ads has an MLP parallel to the cross layers of each group; set "
            "model.lirank.mlp, e.g. to 128,128",
        )
