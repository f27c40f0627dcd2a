"""The work that data asks of a model, whatever the model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """What went through a model: impressions, and allowed pairs of one layer of each kind."""

    impressions: float = 0.0
    history_pairs: float = 0.0
    set_pairs: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.impressions + other.impressions,
            self.history_pairs + other.history_pairs,
            self.set_pairs + other.set_pairs,
        )
