"""Label columns with another coding than 0 and 1, distinguished from single bad rows.

A column of -1 and 1, of yes and no or of ratings has no bad rows: to leave out what is neither 0
nor 1 would keep the positives alone. So such a column is refused as a whole, whether bad rows are
to be skipped or not, and the message lists its values.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import polars as pl

MOST_VALUES = 1000  # distinct bad values that are counted apart
FEW, OFTEN = 10, 100  # rows
POSITIVE_WORDS = ("yes", "y", "t", "positive", "pos", "clicked", "click", "on", "liked")


@dataclass
class LabelTally:
    """Labels of one column by their values.

    bad: count of each value that is neither 0 nor 1, as text.
    """

    zeros: int = 0
    ones: int = 0
    bad: Counter[str] = field(default_factory=Counter)

    def add(self, labels: np.ndarray, values: pl.Series, bad: np.ndarray) -> None:
        """labels: int8, as parsed; bad: bool, which of `values` are no labels."""
        self.zeros += int(((labels == 0) & ~bad).sum())
        self.ones += int(((labels == 1) & ~bad).sum())
        if bad.any():
            counts = values.filter(pl.Series(bad)).cast(pl.String).value_counts()
            for value, count in counts.iter_rows():
                known = value in self.bad or len(self.bad) < MOST_VALUES
                self.bad[value if known else "..."] += count

    @property
    def is_coding(self) -> bool:
        """Whether the bad values are a coding, and not single bad rows.

        They are where leaving them out would leave no negatives, or take all of what may be the
        positives; where they are a third of the labels, or ten rows and one in a hundred; or where
        one of them is frequent. A few odd values in a column of zeros and ones are bad rows.
        """
        rows = self.bad.total()
        if not rows:
            return False
        share = rows / (rows + self.zeros + self.ones)
        return (
            self.zeros == 0
            or (self.ones == 0 and rows >= 2)
            or share > 1 / 3
            or (rows >= FEW and share >= 0.01)
            or max(self.bad.values()) >= OFTEN
        )

    def describe(self, action: str, by_rule: bool) -> str:
        """What the column holds and how to say which values are positive.

        by_rule: whether `--label` can say it, as for tables.
        """
        counts = self.bad + Counter({"0": self.zeros, "1": self.ones})
        shown = [f"{v} ({n:,} rows)" for v, n in sorted(counts.items(), key=_by_value)[:8]]
        more = f" and {len(counts) - 8} more" if len(counts) > 8 else ""
        said = (
            f"its values are {', '.join(shown)}{more}; labels are 0 or 1 (false or true), empty "
            "where unknown. "
        )
        if not by_rule:
            return said + "Write the column as 0 and 1"
        said += f"Say which values are positive, e.g. --label '{action}={self._rule()}'"
        if len(self.bad) == 1 and self.zeros and self.ones:
            said += f" (or --null-values {next(iter(self.bad))}, if that means unknown)"
        return said

    def _rule(self) -> str:
        numbers = [x for v in (*self.bad, *["0"] * bool(self.zeros), *["1"] * bool(self.ones))
                   if (x := _number(v)) is not None]  # fmt: skip
        if len(numbers) < len(self.bad):
            words = [w for w in self.bad if w.lower() in POSITIVE_WORDS]
            return f"value=={(words or [min(self.bad, key=self.bad.__getitem__)])[0]}"
        low, high = min(numbers), max(numbers)
        return "value>0" if low <= 0 else f"value>={(low + high) / 2 + 0.5:g}"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _by_value(item: tuple[str, int]) -> tuple[float, str]:
    number = _number(item[0])
    return (float("inf") if number is None else number, item[0])
