"""The amount of data that went through a model, in the units that determine its FLOPs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """Counts of real impressions, and of allowed attention pairs in one layer of each stack.

    history_pairs: pairs of tokens in a historical layer.
    set_pairs: pairs of items in a set-wise layer.
    """

    impressions: float = 0.0
    history_pairs: float = 0.0
    set_pairs: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(
            impressions=self.impressions + other.impressions,
            history_pairs=self.history_pairs + other.history_pairs,
            set_pairs=self.set_pairs + other.set_pairs,
        )
