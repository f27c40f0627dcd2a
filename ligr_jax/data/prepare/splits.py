"""Times at which the train, validation and test splits begin and end."""

from dataclasses import dataclass

import numpy as np

from ligr_jax.data.manifest import SPLITS
from ligr_jax.data.prepare.partition import Tally
from ligr_jax.data.prepare.sketches import MINUTE_MS, MinuteHistogram
from ligr_jax.data.schema import BadInput


class EmptySplit(BadInput):
    """The log has no impression in a split. The remedy follows the semicolon of the message."""


@dataclass(frozen=True)
class SplitTimes:
    """Ends of the splits, chosen by the user, in milliseconds since 1970 (UTC).

    Attributes:
        train_until, validation_until: ends of train and validation.
        test_until: end of test; None stands for the end of the log.
    """

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
                f"{self.validation_until}, test at {end}; no split may end before the previous one"
            )


@dataclass(frozen=True)
class SplitSpans:
    """Lengths of the last two splits, counted back from the end of the log, in milliseconds.

    Attributes:
        validation_ms, test_ms: lengths of validation and test; train is the rest.
    """

    validation_ms: int
    test_ms: int

    def before(self, end: int) -> SplitTimes:
        """Return the ends of the splits of a log that ends before `end`, in milliseconds."""
        return SplitTimes(end - self.test_ms - self.validation_ms, end - self.test_ms, end)


def split_edges(
    tally: Tally, times: SplitTimes | SplitSpans | None, fractions: tuple[float, float, float]
) -> tuple[int, int, int, int]:
    """Return the times between which the splits lie: edges[k] <= time < edges[k + 1] for split k.

    Args:
        tally: totals of the log.
        times: ends or lengths of the splits, or None to cut by `fractions`.
        fractions: shares of the rows in train, validation and test.

    Returns:
        Four times in milliseconds since 1970 (UTC).

    Raises:
        EmptySplit: the train or the test split would be empty.
        BadInput: the log is too short to be cut.
    """
    first, end = tally.first_ms, tally.last_ms + 1
    if times is None:
        return _by_fractions(tally.minutes, fractions, first, end)
    if isinstance(times, SplitSpans):
        if end - times.validation_ms - times.test_ms <= first:
            raise EmptySplit(
                f"--last {times.validation_ms}ms,{times.test_ms}ms leaves no training rows: the "
                f"log covers {end - first} ms; choose shorter splits"
            )
        times = times.before(end)
    if times.train_until <= first:
        raise EmptySplit(
            f"--train-until {times.train_until} leaves no training rows: the log starts at {first} "
            f"and ends at {end - 1}; choose a time between the two"
        )
    if times.test_until is None and times.validation_until >= end:
        raise EmptySplit(
            f"--validation-until {times.validation_until} leaves the test split empty: the log "
            f"ends at {end - 1}; for an empty test split set --test-until to the same time"
        )
    return first, times.train_until, times.validation_until, times.test_until or end


def _by_fractions(
    minutes: MinuteHistogram, fractions: tuple[float, float, float], first: int, end: int
) -> tuple[int, int, int, int]:
    """Return edges at full minutes, as near to the fractions as possible without empty splits."""
    is_wanted = [f > 0 for f in fractions]
    n = len(minutes.minutes)
    if n < sum(is_wanted):
        raise BadInput(
            f"the log covers {n} minute(s), too few to cut into {sum(is_wanted)} splits by time; "
            "give exact times with --train-until and --validation-until, or --fractions 1,0,0"
        )
    before = np.concatenate([[0], np.cumsum(minutes.rows)])  # rows before minute k, k = 0..n
    targets = np.cumsum(fractions)[:2] * before[-1]
    low, cuts = 0, []
    for k in range(2):
        least = low + is_wanted[k]
        most = n - sum(is_wanted[k + 1 :])
        cut = int(np.abs(before - targets[k]).argmin())
        low = min(max(cut, least), most)
        cuts.append(end if low == n else int(minutes.minutes[low]) * MINUTE_MS)
    return first, cuts[0], cuts[1], end


def check_fractions(fractions: tuple[float, ...]) -> None:
    """Check the fractions of train, validation and test.

    Raises:
        BadInput: there are not three fractions >= 0 with the sum 1 and the first above 0.
    """
    if (
        len(fractions) != len(SPLITS)
        or min(fractions) < 0
        or fractions[0] == 0
        or abs(sum(fractions) - 1) > 1e-6
    ):
        raise BadInput(
            f"--fractions {','.join(map(str, fractions))}: give three numbers >= 0 that add up to "
            "1, the first above 0, e.g. 0.8,0.1,0.1 (0 makes an empty split)"
        )
