"""Detection of label columns that use another coding than 0 and 1.

In a column of -1 and 1, of yes and no, or of ratings, values other than 0 and 1 are not invalid
rows. Skipping them would keep only the positives. Such a column is therefore an error even if
invalid rows are skipped, and the message lists its values.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import polars as pl

MOST_VALUES = 1000  # largest number of distinct values that are counted separately
FEW, OFTEN = 10, 100  # rows; see `LabelTally.is_coding`
NULL_WORDS = ("null", "na", "n/a", "nan", "none", "nil", "-", "?", "\\n", "unknown")
POSITIVE_WORDS = ("yes", "y", "t", "positive", "pos", "clicked", "click", "on", "liked")


@dataclass
class LabelTally:
    """Counts of the values of a label column.

    Attributes:
        zeros, ones: number of labels 0 and 1.
        bad: number of rows of each other value, as text.
    """

    zeros: int = 0
    ones: int = 0
    bad: Counter[str] = field(default_factory=Counter)

    def add(self, labels: np.ndarray, values: pl.Series, bad: np.ndarray) -> None:
        """Add rows.

        Args:
            labels: int8 [N], parsed labels.
            values: [N], values of the file.
            bad: bool [N], whether a value is not a label.
        """
        self.zeros += int(((labels == 0) & ~bad).sum())
        self.ones += int(((labels == 1) & ~bad).sum())
        if bad.any():
            counts = values.filter(pl.Series(bad)).cast(pl.String).value_counts()
            for value, count in counts.iter_rows():
                known = value in self.bad or len(self.bad) < MOST_VALUES
                self.bad[value if known else "..."] += count

    def merge(self, later: "LabelTally") -> None:
        """Add the values of later rows."""
        self.zeros += later.zeros
        self.ones += later.ones
        for value, count in later.bad.items():
            known = value in self.bad or len(self.bad) < MOST_VALUES
            self.bad[value if known else "..."] += count

    @property
    def is_coding(self) -> bool:
        """Whether the other values are a coding, and not single invalid rows.

        They are a coding if skipping them leaves no negatives or no positives, if they are more
        than a third of the labels, if they are at least `FEW` rows and 1 % of the labels, or if one
        of them occurs at least `OFTEN` times.
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
        """Return the values of the column and how to declare the positive ones, for a message.

        Args:
            action: name of the action.
            by_rule: whether the source supports `--label`.
        """
        counts = self.bad + Counter({"0": self.zeros, "1": self.ones})
        shown = [f"{v} ({n:,} rows)" for v, n in sorted(counts.items(), key=_by_value)[:8]]
        more = f" and {len(counts) - 8} more" if len(counts) > 8 else ""
        text = (
            f"its values are {', '.join(shown)}{more}; labels are 0 or 1 (false or true), empty "
            "where unknown. "
        )
        if not by_rule:
            return text + "Write the column as 0 and 1"
        if self.ones and all(word.lower() in NULL_WORDS for word in self.bad):
            return text + f"If they mean unknown, add --null-values {','.join(self.bad)}"
        text += f"Declare which values are positive, e.g. --label '{action}={self._rule()}'"
        if len(self.bad) == 1 and self.zeros and self.ones:
            text += f" (or --null-values {next(iter(self.bad))}, if that means unknown)"
        return text

    def _rule(self) -> str:
        """Return a plausible right-hand side of `--label` for the values of the column."""
        numbers = [x for v in self.bad if (x := _number(v)) is not None]
        if len(numbers) < len(self.bad):
            words = [w for w in self.bad if w.lower() in POSITIVE_WORDS]
            if self.ones:
                return f"value in {'|'.join(['1', *words])}" if words else "value==1"
            return f"value=={(words or [min(self.bad, key=self.bad.__getitem__)])[0]}"
        numbers += [0.0] * bool(self.zeros) + [1.0] * bool(self.ones)
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
