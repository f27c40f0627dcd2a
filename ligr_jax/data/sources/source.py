"""What every source of impressions gives to `prepare`: batches in canonical columns, in file order.

A source is an adapter: it knows the files of one data set and renames and derives columns until
they are those of `ligr_jax.data.schema`. It checks nothing that `validate` checks for everyone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import polars as pl

from ligr_jax.data.schema import LogSchema
from ligr_jax.data.sources.label_rules import LabelRule
from ligr_jax.data.sources.times import TimeRule

OnBadRow = Literal["error", "skip"]


@dataclass(frozen=True)
class Fault:
    """Rows of a batch that break one rule.

    rows: bool [rows of the batch], true where the rule is broken.
    values: the offending column as the file has it, for the message.
    rule: what is wrong and what to do about it.
    """

    column: str
    rows: np.ndarray
    values: pl.Series
    rule: str


@dataclass(frozen=True)
class LogBatch:
    """Consecutive rows of one file.

    first_row: 1-based number of the first row among the file's data rows.
    frame: the rows. `ROW_DIGEST` (uint64), where present, is equal for rows equal in every column
        of the file; an adapter keeps it so that duplicates are judged by the original row.
    text: whether strings that spell integers are integer ids (see `ids`); False where an adapter
        has given the columns their types.
    faults: bad rows the adapter itself came across.
    malformed: rows left out before this batch because they could not be parsed at all.
    """

    file: str
    first_row: int
    frame: pl.DataFrame
    text: bool = True
    faults: tuple[Fault, ...] = ()
    malformed: int = 0


ROW_DIGEST = "\x1fdigest"  # no column of a file: control characters are refused in names

Batches = Callable[[int, OnBadRow], Iterator[LogBatch]]


@dataclass(frozen=True)
class Items:
    """An item table, keyed by `item_id`.

    columns: their names.
    batches: its rows in file order, every time anew; one batch at least.
    """

    columns: Sequence[str]
    batches: Callable[[], Iterator[LogBatch]]

    @classmethod
    def whole(cls, batch: LogBatch) -> "Items":
        """A small table, as one batch."""
        return cls(batch.frame.columns, lambda: iter([batch]))


@dataclass(frozen=True)
class Source:
    """A data set in canonical columns.

    batches: given the most rows a batch may have and what to do with unreadable rows, the batches.
    rows: number of rows, estimated where counting means reading; only sizes the shards.
    description: what the manifest says about the origin; equal descriptions mean equal input.
    items: the item table; what is kept of its columns must fit in memory twice.
    context: batches of earlier history without times, in order, each row one impression.
    names: canonical name -> the file's own name, for messages.
    sessions: whether the log has `session_id`.
    unused: columns of the log without a role.
    by_name: columns with a role that their name alone gave them.
    remarks: what was found out about the files, for the summary.
    weight: column of the batches that holds the weights of rows; None: `weight`, unless that is a
        feature or an action.
    present: columns of the schema's own (`weight`, ...) that the log has.
    rules: of actions that are computed from a column.
    time_rule: how the time column was read, where the source had to find it out.
    """

    name: str
    schema: LogSchema
    batches: Batches
    rows: int
    description: Mapping[str, Any]
    items: Items | None = None
    context: Batches | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    sessions: bool = False
    unused: tuple[str, ...] = ()
    by_name: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    weight: str | None = None
    present: tuple[str, ...] = ()
    rules: Mapping[str, LabelRule] = field(default_factory=dict)
    time_rule: TimeRule | None = None

    def shown_name(self, name: str) -> str:
        """A column for messages: its canonical name, and the file's own where they differ."""
        own = self.names.get(name, name)
        if name.startswith("\x1f"):  # a name that an adapter made up
            return repr(own)
        return repr(name) if own == name else f"{name!r} ({own!r} in the file)"
