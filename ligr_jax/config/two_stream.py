"""Configuration of the two-stream models."""

from dataclasses import dataclass
from typing import Literal

from ligr_jax.config.errors import require


@dataclass(frozen=True)
class TwoStreamConfig:
    """A history stream of one token per impression, and a candidate stream of M tokens."""

    tokens: int = 8
    """M, candidate tokens of an impression."""
    base_tokens: int = 8
    """M of the base shape of muP."""
    tokenizer: Literal["auto", "groups", "chunk"] = "auto"
    """How item features become M tokens: `auto` projects all features to every token; `groups`
    projects one group of features to each token; `chunk` cuts the concatenated features into M
    equal pieces."""
    groups: tuple[str, ...] = ()
    """Features of each token of `tokenizer=groups`, joined by +, e.g. `item_id+tag,actor_id`: M
    groups that name every item feature once."""
    normalize_tokens: bool = False
    """Whether candidate tokens are layer-normalized and pass SiLU, as in UniRank and TAAC."""
    history: Literal["causal", "session"] = "causal"
    """Which earlier impressions a history token sees: `causal` is all of the member, `session` is
    those of earlier sessions, which matches LiGR's mask."""

    def __post_init__(self) -> None:
        for name in ("tokens", "base_tokens"):
            value = getattr(self, name)
            require(value >= 1, f"model.streams.{name}={value} must be >= 1")
        require(
            (self.tokenizer == "groups") == bool(self.groups),
            f"model.streams.tokenizer={self.tokenizer} and model.streams.groups="
            f"{','.join(self.groups)} contradict each other; tokenizer=groups needs groups, and "
            "other tokenizers have none",
        )
        require(
            not self.groups or len(self.groups) == self.tokens,
            f"model.streams.groups has {len(self.groups)} groups for model.streams.tokens="
            f"{self.tokens}; give one group per token",
        )

    @property
    def grouped_features(self) -> tuple[tuple[str, ...], ...]:
        """Names of the features of each group."""
        return tuple(tuple(group.split("+")) for group in self.groups)
