"""The layers of `model.kind=lirank`."""

from dataclasses import dataclass
from typing import Literal

from ligr_jax.config.errors import require


@dataclass(frozen=True)
class LiRankConfig:
    """LiRank's rankers (Borisyuk et al. 2024): features, history, crosses; then `model.head`.

    variant: `feed` (3.1) has crosses that all towers share; `ads` (3.2) crosses and, beside them,
        an MLP for each group of actions; `jobs` (A.8) crosses for each group of actions.
    cross_layers, rank: low-rank crosses (3.3); residual: with attention in parallel, at a
        temperature that starts at `temperature` and may be learned.
    mlp: hidden layers after the crosses that all towers share; LiRank's large one is
        3500,3500,3500,3500 (3.5). Of `ads`, the layers beside the crosses of each group.
    gated: these hidden layers through gates.
    experts: above 0, `mlp` is a sparse mixture of so many, of which `chosen` answer (3.5).
    balance: weight of the losses that keep their load even.
    batch_norm: numeric features through batch normalization (3.1, 6.2).
    history: newest impressions that the history encoder reads (3.7); 0 for none. It has
        `history_layers`, of `history_heads`, on items and actions `history_width` wide each; the
        `history_last` newest steps are flattened.
    wide: a feature with a table, usually the item's id, of which the last columns, one for each
        action, start as zero and are added to the logits (3.9); "" for none.
    """

    variant: Literal["feed", "ads", "jobs"] = "feed"
    cross_layers: int = 2
    rank: int = 32
    residual: bool = True
    temperature: float = 1.0
    learned_temperature: bool = True
    mlp: tuple[int, ...] = ()
    gated: bool = True
    experts: int = 0
    chosen: int = 2
    balance: float = 0.1
    batch_norm: bool = True
    history: int = 16
    history_width: int = 16
    history_heads: int = 2
    history_layers: int = 2
    history_last: int = 5
    wide: str = ""

    def __post_init__(self) -> None:
        for name in ("rank", "history_width", "history_heads"):
            value = getattr(self, name)
            require(value >= 1, f"model.lirank.{name}={value} must be >= 1")
        for name in ("cross_layers", "experts", "balance", "history", "history_layers"):
            value = getattr(self, name)
            require(value >= 0, f"model.lirank.{name}={value} must be >= 0")
        require(
            self.temperature > 0, f"model.lirank.temperature={self.temperature} must be above 0"
        )
        require(
            all(width >= 1 for width in self.mlp),
            f"model.lirank.mlp={','.join(map(str, self.mlp))}: hidden widths must be >= 1",
        )
        require(
            not self.history or 0 <= self.history_last <= self.history,
            f"model.lirank.history_last={self.history_last} steps of "
            f"model.lirank.history={self.history}; lower the first or raise the second",
        )
        require(
            3 * self.history_width % self.history_heads == 0,
            f"3 x model.lirank.history_width={self.history_width} is not divisible by "
            f"model.lirank.history_heads={self.history_heads}; change one of the two",
        )
        if self.experts:
            require(
                1 <= self.chosen <= self.experts,
                f"model.lirank.chosen={self.chosen} of model.lirank.experts={self.experts}; "
                "choose 1 to all of them",
            )
            require(
                bool(self.mlp),
                f"model.lirank.experts={self.experts} are of the shape of model.lirank.mlp, which "
                "is empty; set it, e.g. to 128",
            )
            require(
                self.variant == "feed",
                f"model.lirank.experts={self.experts} stand in the shared layers of "
                f"variant=feed, not of variant={self.variant}; set experts=0",
            )
        require(
            self.variant != "jobs" or not self.mlp,
            f"model.lirank.mlp={','.join(map(str, self.mlp))}: variant=jobs has no hidden layers "
            "but its towers'; leave it empty and set model.head.kind=mlp and model.head.widths",
        )
        require(
            bool(self.mlp) or self.variant != "ads",
            "model.lirank.variant=ads has an MLP beside each group's crosses; set "
            "model.lirank.mlp, e.g. to 128,128",
        )
