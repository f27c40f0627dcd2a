"""Rows that are left out as bad, counted by column and rule."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from ligr_jax.data.schema import RANDOM, BadInput
from ligr_jax.data.sources.codings import LabelTally
from ligr_jax.data.sources.parse import labels
from ligr_jax.data.sources.source import Fault, LogBatch, Source

CODING_ROWS = 2_000_000  # read to tell a coding of labels from bad rows
BATCH_ROWS = 1 << 17


@dataclass
class Skipped:
    """What `--on-bad-row skip` has left out, in bounded memory.

    counts: rows by column and rule; a row with two faults counts for both.
    examples: where the first row of each stands, and its value.
    labels: by column, of the label columns.
    """

    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    examples: dict[tuple[str, str], str] = field(default_factory=dict)
    labels: dict[str, LabelTally] = field(default_factory=dict)
    malformed: int = 0

    def add(
        self, batch: LogBatch, faults: Iterable[Fault], known: Mapping[str, np.ndarray]
    ) -> None:
        """known: int8 labels [rows of the batch] of every label column that the batch has."""
        self.malformed += batch.malformed
        bad: dict[str, np.ndarray] = {}
        for fault in faults:
            if not fault.rows.any():
                continue
            bad[fault.column] = fault.rows | bad.get(fault.column, np.zeros(1, bool))
            key = fault.column, fault.rule
            row = int(fault.rows.argmax())
            example = f"{batch.file}, row {batch.first_row + row}: {shown(fault.values[row])}"
            self.counts[key] = self.counts.get(key, 0) + int(fault.rows.sum())
            self.examples.setdefault(key, example)
        for name, values in known.items():
            tally = self.labels.setdefault(name, LabelTally())
            rows = bad.get(name, np.zeros(len(values), bool))
            tally.add(values, batch.frame[name], rows)

    def description(self) -> list[dict[str, object]]:
        """For the summary."""
        out: list[dict[str, object]] = [
            {"column": column, "rule": rule, "rows": n, "example": self.examples[column, rule]}
            for (column, rule), n in self.counts.items()
        ]
        if self.malformed:
            rule = "another number of fields than the header has"
            out.append({"column": "", "rule": rule, "rows": self.malformed, "example": ""})
        return out


def refuse_codings(skipped: Skipped, source: Source, where: str) -> None:
    """Raises `BadInput` where the rows that were left out are a coding of a label column."""
    for name, tally in skipped.labels.items():
        if tally.is_coding:
            raise BadInput(
                f"{where}, column {source.shown_name(name)}: --on-bad-row skip would leave out "
                f"{tally.bad.total():,} rows of one coding: "
                f"{tally.describe(name, source.name == 'table')}"
            )


def refuse_coding(batch: LogBatch, source: Source, faults: Iterable[Fault]) -> None:
    """Raises `BadInput` where the first fault is of a label column of another coding.

    The column is read on, up to CODING_ROWS rows: a batch may hold too few to tell.
    """
    bad = [f for f in faults if f.rows.any()]
    first = min(bad, key=lambda f: int(f.rows.argmax()), default=None)
    if first is None or first.column not in (RANDOM, *source.schema.actions):
        return
    tally, rows = LabelTally(), 0
    for other in source.batches(BATCH_ROWS, "skip"):
        if first.column in other.frame.columns:
            values, rules = labels(other.frame[first.column])
            tally.add(values, other.frame[first.column], rules[0][0])
        rows += other.frame.height
        if rows >= CODING_ROWS:
            break
    if tally.is_coding:
        raise BadInput(
            f"{batch.file}, column {source.shown_name(first.column)}: "
            f"{tally.describe(first.column, source.name == 'table')}"
        )


def shown(value: object) -> str:
    """A value for messages."""
    if isinstance(value, pl.Series):
        value = value.to_list()
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
