"""Configuration of `model.kind=ultra`."""

from dataclasses import dataclass
from typing import Literal

from ligr_jax.config.errors import require


@dataclass(frozen=True)
class UltraConfig:
    """Visible history and activation of ULTRA-HSTU (arXiv:2602.16986)."""

    local_window: int = 256
    """K1: a history token sees at most its newest K1 keys, itself included; 0 for all."""
    oldest: int = 0
    """K2: a history token also sees the K2 oldest impressions of its member in the row. Which these
    are depends on where the data cuts rows, and a served history must begin at the same one."""
    truncated_layers: int = 0
    """Number of last layers whose tokens see the newest `truncated_window` history tokens only."""
    truncated_window: int = 0
    """w, largest number of history tokens that a token of a truncated layer sees."""
    activation: Literal["all", "gate"] = "all"
    """Which projections pass SiLU: `all` are U, V, Q and K, as in the paper; `gate` is U alone, as
    in TorchEasyRec."""

    def __post_init__(self) -> None:
        for name in ("local_window", "oldest", "truncated_layers", "truncated_window"):
            value = getattr(self, name)
            require(value >= 0, f"model.ultra.{name}={value} must be >= 0")
        require(
            (self.truncated_layers > 0) == (self.truncated_window > 0),
            f"model.ultra.truncated_layers={self.truncated_layers} and model.ultra.truncated_window"
            f"={self.truncated_window} contradict each other; set both, or both to 0",
        )
        require(
            not self.oldest or self.local_window > 0,
            f"model.ultra.oldest={self.oldest} adds no key to model.ultra.local_window=0, which "
            "shows all; set local_window >= 1 or oldest=0",
        )
