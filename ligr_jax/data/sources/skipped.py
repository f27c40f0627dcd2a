"""Counts of invalid rows that are skipped, by column and rule."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from ligr_jax.data.schema import RANDOM, BadInput
from ligr_jax.data.sources.codings import LabelTally
from ligr_jax.data.sources.column_errors import (
    BATCH_ROWS,
    MOST,
    SCANNED_ROWS,
    problem_of,
    refuse_column,
    remedy_of,
)
from ligr_jax.data.sources.parse import LABEL_RULE, parse_labels
from ligr_jax.data.sources.rules import format_value
from ligr_jax.data.sources.source import Fault, LogBatch, LogSource


@dataclass
class SkippedRows:
    """Rows that `--on-bad-row skip` drops.

    Attributes:
        counts: number of rows by column and rule; a row with two faults counts twice.
        present: the same without missing values.
        examples: file, row and value of the first row, by column and rule.
        labels: values of the label columns, by column.
        malformed: number of lines with a wrong number of fields.
    """

    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    present: dict[tuple[str, str], int] = field(default_factory=dict)
    examples: dict[tuple[str, str], str] = field(default_factory=dict)
    labels: dict[str, LabelTally] = field(default_factory=dict)
    malformed: int = 0

    def add(
        self, batch: LogBatch, faults: Iterable[Fault], known: Mapping[str, np.ndarray]
    ) -> None:
        """Add the faults of a batch.

        Args:
            batch: the batch, with N rows.
            faults: its faults.
            known: int8 labels [N] of the label columns of the batch, by column.
        """
        self.malformed += batch.malformed
        uncoded: dict[str, np.ndarray] = {}  # rows that are not labels, by column
        incomparable: dict[str, np.ndarray] = {}  # rows with another fault, e.g. of a label rule
        for fault in faults:
            if not fault.rows.any():
                continue
            rows_of = uncoded if fault.rule == LABEL_RULE else incomparable
            rows_of[fault.column] = fault.rows | rows_of.get(fault.column, np.zeros(1, bool))
            key = fault.column, fault.rule
            row = int(fault.rows.argmax())
            example = (
                f"{batch.file}, row {batch.row_number(row)}: {format_value(fault.values[row])}"
            )
            invalid = pl.Series(fault.rows) & fault.values.is_not_null()
            self.counts[key] = self.counts.get(key, 0) + int(fault.rows.sum())
            self.present[key] = self.present.get(key, 0) + int(invalid.sum())
            self.examples.setdefault(key, example)
        for name, values in known.items():
            tally = self.labels.setdefault(name, LabelTally())
            none = np.zeros(len(values), bool)
            kept = ~incomparable.get(name, none)
            bad = uncoded.get(name, none)[kept]
            tally.add(values[kept], batch.frame[name].filter(pl.Series(kept)), bad)

    def merge(self, later: "SkippedRows") -> None:
        """Add the rows of later batches."""
        self.malformed += later.malformed
        for key, rows in later.counts.items():
            self.counts[key] = self.counts.get(key, 0) + rows
            self.present[key] = self.present.get(key, 0) + later.present[key]
            self.examples.setdefault(key, later.examples[key])
        for name, tally in later.labels.items():
            self.labels.setdefault(name, LabelTally()).merge(tally)

    def description(self) -> list[dict[str, object]]:
        """Return the counts for the summary."""
        out: list[dict[str, object]] = [
            {"column": column, "rule": rule, "rows": n, "example": self.examples[column, rule]}
            for (column, rule), n in self.counts.items()
        ]
        if self.malformed:
            rule = "wrong number of fields"
            out.append({"column": "", "rule": rule, "rows": self.malformed, "example": ""})
        return out


def refuse_codings(skipped: SkippedRows, source: LogSource, where: str) -> None:
    """Check that the skipped rows are not a coding of a label column.

    Args:
        skipped: rows that were skipped.
        source: the log.
        where: file, for the message.

    Raises:
        BadInput: the skipped rows of a label column are a coding.
    """
    for name, tally in skipped.labels.items():
        if tally.is_coding:
            raise BadInput(
                f"{where}, column {source.display_name(name)}: --on-bad-row skip would drop "
                f"{tally.bad.total():,} rows of another coding: "
                f"{tally.describe(name, source.name == 'table')}"
            )


def refuse_columns(skipped: SkippedRows, source: LogSource, rows: int, where: str) -> None:
    """Check that the skipped rows are not most values of a column.

    Args:
        skipped: rows that were skipped.
        source: the log.
        rows: number of rows of the log.
        where: file, for the message.

    Raises:
        BadInput: most rows of the log have invalid values in a column.
    """
    for (column, rule), bad in skipped.present.items():
        if bad > 1 and bad > MOST * rows:
            example = skipped.examples[column, rule]
            raise BadInput(
                f"{where}, column {source.display_name(column)}: --on-bad-row skip would drop "
                f"{bad:,} of {rows:,} rows, because their value {problem_of(rule)} (e.g. "
                f"{example}); {remedy_of(rule, source, example)}"
            )


def refuse_systematic(
    batch: LogBatch,
    source: LogSource,
    faults: Iterable[Fault],
    faults_of: Callable[[LogBatch, str], Iterable[Fault]],
) -> None:
    """Check that the first fault of a batch is one of few invalid rows.

    Args:
        batch: the batch.
        source: the log.
        faults: faults of the batch.
        faults_of: returns the faults of a column in a batch.

    Raises:
        BadInput: the labels of the column have another coding than 0 and 1, or most values of the
            column are invalid.
    """
    bad = [f for f in faults if f.rows.any()]
    first = min(bad, key=lambda f: int(f.rows.argmax()), default=None)
    if first is None:
        return
    if first.column in (RANDOM, *source.schema.actions) and first.rule == LABEL_RULE:
        _refuse_coding(batch, source, first.column)
    else:
        refuse_column(batch, source, first, faults_of)


def _refuse_coding(batch: LogBatch, source: LogSource, column: str) -> None:
    """Raise `BadInput` if a label column has another coding, in up to `SCANNED_ROWS` rows."""
    tally, rows = LabelTally(), 0
    for other in source.batches(BATCH_ROWS, "skip"):
        if column in other.frame.columns:
            values, rules = parse_labels(other.frame[column])
            tally.add(values, other.frame[column], rules[0][0])
        rows += other.frame.height
        if rows >= SCANNED_ROWS:
            break
    if tally.is_coding:
        raise BadInput(
            f"{batch.file}, column {source.display_name(column)}: "
            f"{tally.describe(column, source.name == 'table')}"
        )
