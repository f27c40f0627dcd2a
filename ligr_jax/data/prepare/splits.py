"""Where in time the train, validation and test splits end."""

from dataclasses import dataclass

import numpy as np

from ligr_jax.data.manifest import SPLITS
from ligr_jax.data.prepare.partition import Tally
from ligr_jax.data.prepare.sketches import MINUTE_MS, MinuteHistogram
from ligr_jax.data.schema import BadInput


@dataclass(frozen=True)
class SplitTimes:
    """Split ends chosen by hand, in milliseconds; `test_until` None means the end of the log."""

    train_until: int
    validation_until: int
    test_until: int | None = None

    def __post_init__(self) -> None:
        end = self.test_until
        if self.validation_until < self.train_until or (
            end is not None and end < self.validation_until
        ):
            raise BadInput(
                f"splits end out of order: train at {self.train_until}, validation at "
                f"{self.validation_until}, test at {end}; each must end at or after the one before"
            )


def split_edges(
    tally: Tally, times: SplitTimes | None, fractions: tuple[float, float, float]
) -> tuple[int, int, int, int]:
    """First and last edges of train, validation, test in ms: split k is edge[k] <= t < edge[k + 1].

    Raises `BadInput` where no row would be left to train on, or where the log is too short to cut.
    """
    first, end = tally.first_ms, tally.last_ms + 1
    if times is None:
        return _by_fractions(tally.minutes, fractions, first, end)
    if times.train_until <= first:
        raise BadInput(
            f"--train-until {times.train_until} leaves no training rows: the log starts at {first} "
            f"and ends at {end - 1}; choose a time between the two"
        )
    if times.test_until is None and times.validation_until >= end:
        raise BadInput(
            f"--validation-until {times.validation_until} leaves the test split empty: the log "
            f"ends at {end - 1}; if that is meant, give --test-until the same time"
        )
    return first, times.train_until, times.validation_until, times.test_until or end


def _by_fractions(
    minutes: MinuteHistogram, fractions: tuple[float, float, float], first: int, end: int
) -> tuple[int, int, int, int]:
    """Edges at full minutes, nearest to the fractions of rows, with no wanted split left empty."""
    wanted = [f > 0 for f in fractions]
    n = len(minutes.minutes)
    if n < sum(wanted):
        raise BadInput(
            f"the log covers {n} minute(s), too few to cut into {sum(wanted)} splits by time; "
            "give exact times with --train-until and --validation-until, or --fractions 1,0,0"
        )
    before = np.concatenate([[0], np.cumsum(minutes.rows)])  # rows before minute k, k = 0..n
    targets = np.cumsum(fractions)[:2] * before[-1]
    low, cuts = 0, []
    for k in range(2):
        least = low + wanted[k]
        most = n - sum(wanted[k + 1 :])
        cut = int(np.abs(before - targets[k]).argmin())
        low = min(max(cut, least), most)
        cuts.append(end if low == n else int(minutes.minutes[low]) * MINUTE_MS)
    return first, cuts[0], cuts[1], end


def check_fractions(fractions: tuple[float, ...]) -> None:
    """Raises `BadInput` unless there are three fractions >= 0 that add up to 1, train's above 0."""
    if (
        len(fractions) != len(SPLITS)
        or min(fractions) < 0
        or fractions[0] == 0
        or abs(sum(fractions) - 1) > 1e-6
    ):
        raise BadInput(
            f"--fractions {','.join(map(str, fractions))}: give three numbers >= 0 that add up to "
            "1, the first above 0, e.g. 0.8,0.1,0.1 (an empty split is a 0)"
        )
