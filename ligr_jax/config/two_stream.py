"""Configuration of the two-stream models."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from ligr_jax.config.errors import require
from ligr_jax.config.lists import join_list


@dataclass(frozen=True)
class TwoStreamConfig:
    """A history stream of one token per impression, and a candidate stream of M tokens."""

    tokens: int = 8
    """M, candidate tokens of an impression. In `kind=rankmixer` and `tokenmixer`, the last one is
    read from the history."""
    queries: int = 2
    """G, queries of an impression in `kind=hyformer`, which mix with its M candidate tokens."""
    base_tokens: int = 8
    """M of the base shape of muP."""
    tokenizer: Literal["auto", "groups", "chunk"] = "auto"
    """How item features become M tokens: `auto` projects all features to every token; `groups`
    projects one group of features to each token; `chunk` cuts the concatenated features into M
    equal pieces."""
    groups: tuple[str, ...] = ()
    """Features of each token of `tokenizer=groups`, joined by +, e.g. `item_id+tag,actor_id`:
    one group per token, which together name every item feature once."""
    normalize_tokens: bool = False
    """Whether candidate tokens are layer-normalized and pass SiLU, as in UniRank and TAAC."""
    history: Literal["causal", "session", "recompute"] = "causal"
    """Which earlier impressions a history token sees: `causal` is all of the member, `session` is
    those of earlier sessions, which matches LiGR's mask. `recompute` encodes the newest history
    once per request, with one cut for all its tokens (`ligr_jax.nn.recompute`): the published form
    of some models, for small data."""
    windows: tuple[int, ...] = ()
    """Largest number of history tokens that a token sees in each layer, the newest ones, e.g.
    `512,128,32`; empty for all. A history token counts itself. With `history=recompute`, a layer
    has only these tokens, counted from the request."""
    window_schedule: Literal["list", "linear"] = "list"
    """`list`: `windows` has one number for each layer. `linear`: `windows` is the window of the
    first layer, and those of the others decrease linearly to M in the last layer, rounded to
    multiples of 32 between these two (OneTrans' pyramid)."""

    def __post_init__(self) -> None:
        for name in ("tokens", "queries", "base_tokens"):
            value = getattr(self, name)
            require(value >= 1, f"model.streams.{name}={value} must be >= 1")
        require(
            (self.tokenizer == "groups") == bool(self.groups),
            f"model.streams.tokenizer={self.tokenizer} and model.streams.groups="
            f"{','.join(self.groups)} contradict each other; tokenizer=groups needs groups, and "
            "other tokenizers have none",
        )
        self._check_windows()
        require(
            self.history != "recompute" or bool(self.windows),
            "model.streams.history=recompute needs model.streams.windows: the first window is the "
            "number of history tokens that are encoded for a request",
        )

    def _check_windows(self) -> None:
        text = f"model.streams.windows={join_list(self.windows)}"
        require(all(w >= 1 for w in self.windows), f"{text}: windows must be >= 1")
        require(
            all(a >= b for a, b in pairwise(self.windows)),
            f"{text}: a window is wider than that of the layer before; give them in falling order",
        )
        require(
            self.window_schedule == "list"
            or (len(self.windows) == 1 and self.windows[0] >= self.tokens),
            f"model.streams.window_schedule=linear: {text} must be the window of the first layer, "
            f"one number >= model.streams.tokens={self.tokens}",
        )

    @property
    def grouped_features(self) -> tuple[tuple[str, ...], ...]:
        """Names of the features of each group."""
        return tuple(tuple(group.split("+")) for group in self.groups)

    def layer_windows(self, depth: int) -> tuple[int, ...]:
        """Return the window of each of `depth` layers; () without windows."""
        if self.window_schedule == "list":
            return self.windows
        first, last = self.windows[0], self.tokens
        between = (first - (first - last) * layer / (depth - 1) for layer in range(1, depth - 1))
        rounded = (min(max(32 * round(w / 32), last), first) for w in between)
        return (first, *rounded, last)[:depth]
