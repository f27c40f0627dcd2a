"""The interface of sources: batches of impressions in canonical columns and in file order.

A source is an adapter for the files of one format. It renames and derives columns to the columns of
`ligr_jax.data.schema`. Checks that apply to all sources are in `validate`.
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
    """Rows of a batch that violate a rule.

    Attributes:
        column: name of the column.
        rows: bool [N], whether a row of the batch violates the rule.
        values: the column of the file, for the message.
        rule: the violation and its remedy.
    """

    column: str
    rows: np.ndarray
    values: pl.Series
    rule: str


@dataclass(frozen=True)
class LogBatch:
    """Consecutive rows of one file.

    Attributes:
        file: name of the file.
        first_row: number of the first row among the data rows of the file, from 1.
        frame: the rows. `ROW_DIGEST` (uint64), if present, is equal for rows that are equal in
            every column of the file. Adapters keep it, so that duplicates are detected in the
            original rows.
        text: whether strings that spell integers are integer ids (see `ids`). It is False if an
            adapter set the types of the columns.
        faults: invalid rows that the adapter detected.
        malformed: number of rows before this batch that could not be parsed and were skipped.
        labelled: number of rows that have a row in the table of labels.
        row_numbers: int64 [N], the row of the file of each row, if a row of the file became several
            (see `ligr_jax.data.sources.slates`); None if the rows are consecutive.
    """

    file: str
    first_row: int
    frame: pl.DataFrame
    text: bool = True
    faults: tuple[Fault, ...] = ()
    malformed: int = 0
    labelled: int = 0
    row_numbers: np.ndarray | None = None

    def row_number(self, row: int) -> int:
        """Return the number of a row of the batch among the data rows of the file, from 1."""
        if self.row_numbers is None:
            return self.first_row + row
        return int(self.row_numbers[row])


ROW_DIGEST = "\x1fdigest"  # control characters are not allowed in names of users

Batches = Callable[[int, OnBadRow], Iterator[LogBatch]]
DeferredBatch = Callable[[], LogBatch]
Part = Callable[[int, OnBadRow], Iterator[DeferredBatch]]


@dataclass(frozen=True)
class ItemSource:
    """An item table with one row per `item_id`.

    Attributes:
        columns: names of the columns.
        batches: returns an iterator over at least one batch, in file order.
    """

    columns: Sequence[str]
    batches: Callable[[], Iterator[LogBatch]]

    @classmethod
    def from_batch(cls, batch: LogBatch) -> "ItemSource":
        """Return an item table of one batch."""
        return cls(batch.frame.columns, lambda: iter([batch]))


@dataclass(frozen=True)
class LogSource:
    """A log in canonical columns.

    Attributes:
        name: name of the format.
        schema: actions and features.
        batches: returns an iterator over batches, given their largest number of rows and whether
            unreadable rows are an error.
        rows: number of rows, which only determines the number of shards and can be an estimate.
        description: files and options, for the manifest. Equal descriptions mean equal input.
        items: the item table; its feature columns must fit into memory twice.
        context: returns batches of earlier history without times, in order.
        context_targets: whether context rows can be targets; clicks alone cannot, because a model
            would learn that every label is 1.
        names: canonical name -> name in the file, for messages.
        sessions: whether the log has `session_id`.
        unused: columns of the log without a role.
        by_name: columns with a role by their name alone.
        remarks: remarks on the files, for the summary.
        weight: column of the batches with the weights of rows, or "". None stands for `weight`,
            unless that is a feature or an action.
        present: optional columns of the schema (`weight`, ...) that the log has.
        rules: rules of the actions that are computed from a column.
        time_rule: how the time column is read, if the source inferred it.
        label_table: what the table of labels is called in messages, and its number of rows; None
            without one.
        one_label: whether rows of one member, item and time are one impression, whose labels are
            those of its last row if they differ.
        parts: the rows of `batches` in independent parts (`ligr_jax.data.sources.parts`); () stands
            for one part.
    """

    name: str
    schema: LogSchema
    batches: Batches
    rows: int
    description: Mapping[str, Any]
    items: ItemSource | None = None
    context: Batches | None = None
    context_targets: bool = True
    names: Mapping[str, str] = field(default_factory=dict)
    sessions: bool = False
    unused: tuple[str, ...] = ()
    by_name: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    weight: str | None = None
    present: tuple[str, ...] = ()
    rules: Mapping[str, LabelRule] = field(default_factory=dict)
    time_rule: TimeRule | None = None
    label_table: tuple[str, int] | None = None
    one_label: bool = False
    parts: tuple[Part, ...] = ()

    def display_name(self, name: str) -> str:
        """Return the name of a column for messages, with its name in the file if that differs."""
        original = self.names.get(name, name)
        if name.startswith("\x1f"):  # an internal name of an adapter
            return repr(original)
        return repr(name) if original == name else f"{name!r} ({original!r} in the file)"
