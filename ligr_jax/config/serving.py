"""Configuration of scoring requests with a trained model."""

from dataclasses import dataclass

from ligr_jax.config.errors import require


@dataclass(frozen=True)
class ScoringConfig:
    """How candidates are ranked, and the array sizes of requests."""

    set_top: int = 10
    """K, number of candidates that the set-wise layers see: the best by point-wise score (LiGR
    4.0.2). At least the number of candidates: the logits of training; 0 disables these layers."""
    weights: tuple[float, ...] = ()
    """Weight of each action's probability in the score that orders candidates; () weights all
    actions equally."""
    position: int = 1
    """Row of the post feature (`Feature.post`), e.g. the bucket of the display position, whose
    scores candidates without one get."""
    impressions: int = 0
    """Largest number of impressions of an encoded history; 0 stands for `data.seq_len` / 2, the
    number of impressions of a training row."""
    smallest: int = 16
    """Smallest size of an array of impressions or candidates. Sizes are this number times powers
    of two, so that few programs are compiled."""

    def __post_init__(self) -> None:
        for name in ("set_top", "impressions"):
            require(getattr(self, name) >= 0, f"{name}={getattr(self, name)} must be >= 0")
        for name in ("position", "smallest"):
            require(getattr(self, name) >= 1, f"{name}={getattr(self, name)} must be >= 1")
        require(
            all(weight >= 0 for weight in self.weights) and (not self.weights or any(self.weights)),
            f"weights={self.weights} must be >= 0, and one of them > 0",
        )

    def bucket(self, count: int) -> int:
        """Return the size of an array that holds `count` impressions or candidates."""
        size = self.smallest
        while size < count:
            size *= 2
        return size
