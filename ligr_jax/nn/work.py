"""The amount of data that went through a model, in the units that determine its FLOPs."""

from dataclasses import astuple, dataclass


@dataclass(frozen=True)
class Work:
    """Counts of real impressions, and of allowed attention pairs in one layer of each stack.

    history_pairs: pairs of tokens in a historical layer.
    set_pairs: pairs of items in a set-wise layer.

    For two-stream models, summed over all layers:

    stream_pairs: pairs of history tokens, each token with itself included.
    range_pairs: pairs of an impression and a history token that its candidate tokens see.
    """

    impressions: float = 0.0
    history_pairs: float = 0.0
    set_pairs: float = 0.0
    stream_pairs: float = 0.0
    range_pairs: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(*(a + b for a, b in zip(astuple(self), astuple(other))))

    def __mul__(self, factor: float) -> "Work":
        return Work(*(factor * value for value in astuple(self)))
