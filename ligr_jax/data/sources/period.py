"""Checks of units by medians: the times of a public data set lie in its known period."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from ligr_jax.data.schema import BadInput

PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000}
UNIT_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds"}
DAY_S = 86_400


@dataclass(frozen=True)
class Period:
    """Days in which the median of a time column lies.

    Attributes:
        title: name of the data set.
        first, last: the first and the last day, e.g. "2024-01-13".
    """

    title: str
    first: str
    last: str

    def require(self, values: Iterable[pl.Series], unit: str, where: str) -> None:
        """Check a column of times.

        Args:
            values: the column in pieces: numbers since 1970 in `unit`, or datetimes.
            unit: s, ms or us.
            where: file and column, for the message.

        Raises:
            BadInput: the median is not in the period, with half a day of tolerance for time zones.
                The message names the unit that fits.
        """
        low = _seconds(self.first) - DAY_S / 2
        high = _seconds(self.last) + DAY_S * 3 / 2
        limits = {u: (low * per, high * per) for u, per in PER_SECOND.items()}
        sides, example = _median_sides((_numbers(v, unit) for v in values), limits)
        if sides[unit] == 0:
            return
        fitting = [u for u, side in sides.items() if side == 0]
        problem = (
            f"the values are {UNIT_NAMES[fitting[0]]}: convert the column to {UNIT_NAMES[unit]}"
            if fitting
            else f"in no unit are these times of {self.title}: is the file of another data set?"
        )
        raise BadInput(
            f"{where}: the median of the times is {'before' if sides[unit] < 0 else 'after'} the "
            f"period of {self.title}, {self.first} to {self.last} (e.g. value {example}); {problem}"
        )


def median_side(values: Iterable[pl.Series], low: float, high: float) -> int:
    """Return where the median of numbers lies: -1 below `low`, 1 above `high`, else 0.

    Args:
        values: the numbers in pieces; nulls are left out.
        low, high: the limits.
    """
    return _median_sides(values, {"": (low, high)})[0][""]


def _median_sides(
    values: Iterable[pl.Series], limits: Mapping[str, tuple[float, float]]
) -> tuple[dict[str, int], int | float | None]:
    """Return the side of the median for each pair of limits, and the first number."""
    count = 0
    example: int | float | None = None
    below = dict.fromkeys(limits, 0)
    above = dict.fromkeys(limits, 0)
    for piece in values:
        numbers = piece.drop_nulls()
        count += len(numbers)
        if example is None and len(numbers):
            example = numbers[0]
        for name, (low, high) in limits.items():
            below[name] += int((numbers < low).sum())
            above[name] += int((numbers > high).sum())
    # A median is outside of a limit if more than half of the numbers are.
    sides = {name: (2 * above[name] > count) - (2 * below[name] > count) for name in limits}
    return sides, example


def _numbers(values: pl.Series, unit: str) -> pl.Series:
    if isinstance(values.dtype, pl.Datetime):
        return values.dt.epoch("us") // (PER_SECOND["us"] // PER_SECOND[unit])
    return values.cast(pl.Int64, strict=False)


def _seconds(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp())
