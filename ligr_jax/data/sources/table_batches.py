"""Conversion of a table's rows to batches in canonical columns."""

from dataclasses import replace

import numpy as np
import polars as pl

from ligr_jax.data.schema import MEMBER, TIME, BadInput
from ligr_jax.data.sources.cells import drop_null_words
from ligr_jax.data.sources.label_table import LabelTable
from ligr_jax.data.sources.source import ROW_DIGEST, Fault, LogBatch
from ligr_jax.data.sources.table_columns import BY_NAME, ITEM, LOSS_WEIGHT, TableColumns
from ligr_jax.data.sources.times import TimeRule, parse_times


def used_columns(present: list[str], columns: TableColumns) -> list[str]:
    """Return the canonical columns of a table that have a role."""
    roles = {MEMBER, TIME, *BY_NAME, ITEM, *columns.all_actions, *columns.features}
    return [n for n in present if n in roles]


def canonical_batch(
    batch: LogBatch,
    columns: TableColumns,
    time: TimeRule | None,
    used: list[str],
    labels: LabelTable | None = None,
) -> LogBatch:
    """Convert a batch of the log.

    Args:
        batch: rows of a file.
        columns: the declared columns.
        time: how the time column is read; None if the log has no times.
        used: result of `used_columns`.
        labels: the table of labels.

    Returns:
        The rows with canonical names, times in milliseconds and labels computed by rules, without
        unused columns. Values that cannot be converted are reported as faults.

    Raises:
        BadInput: the time column or the column of a rule has a type that cannot be converted.
    """
    frame = _rename_columns(batch.frame, columns)
    labelled = 0
    if labels is not None:
        try:
            frame, labelled = labels.attach(frame, time)
        except TypeError as e:
            raise BadInput(f"{batch.file}, --labels-on {','.join(labels.on)}: {e}") from e
    faults: list[Fault] = []
    # Columns that are derived: second uses, weights, times, labels of rules, bags without null ids.
    made = {c: frame[ours].alias(c) for c, ours in columns.copies.items() if ours in frame.columns}
    if columns.weight:
        made[LOSS_WEIGHT] = frame[columns.canonical(columns.weight)].alias(LOSS_WEIGHT)
    if time is None:  # equal times leave the rows in file order
        made[TIME] = pl.Series(TIME, np.zeros(frame.height, np.int64))
    else:
        try:
            ms, rules = parse_times(frame[TIME], time)
        except TypeError as e:
            raise BadInput(
                f"{batch.file}, column {TIME!r}: {e}, unlike in the other files; write one type"
            ) from e
        made[TIME] = pl.Series(TIME, ms)
        faults += [Fault(TIME, rows, frame[TIME], rule) for rows, rule in rules]
    for rule in columns.labels:
        read = [columns.canonical(name) for name in rule.columns]
        try:
            made[rule.action], broken = rule.apply([frame[n] for n in read], columns.separator)
        except TypeError as e:
            raise BadInput(f"{batch.file}, --label {rule.text}: column {read[0]!r}: {e}") from e
        faults += [Fault(read[-1], rows, frame[read[-1]], text) for rows, text in broken]
    for name in columns.bag:
        if name in frame.columns:
            words = columns.reading.null_values
            made[name] = drop_null_words(frame[name], columns.separator, words)
    # All other columns with a role are kept unchanged.
    kept = [frame[n] for n in (*used, ROW_DIGEST) if n not in made and n in frame.columns]
    return replace(
        batch,
        frame=pl.DataFrame([*kept, *made.values()]),
        faults=(*batch.faults, *faults),
        labelled=labelled,
    )


def renamed_item_batch(batch: LogBatch, columns: TableColumns) -> LogBatch:
    """Return a batch of the item table with canonical names and second uses of columns."""
    frame = _rename_columns(batch.frame, columns)
    made = [frame[o].alias(c) for c, o in columns.copies.items() if o in frame.columns]
    return replace(batch, frame=frame.with_columns(made))


def _rename_columns(frame: pl.DataFrame, columns: TableColumns) -> pl.DataFrame:
    """Return a frame with canonical names and without ignored columns.

    Columns are renamed one by one because polars interprets names such as ^x$ as patterns.
    """
    kept = (s for s in frame.iter_columns() if s.name not in columns.ignore)
    return pl.DataFrame([s.alias(columns.renamed.get(s.name, s.name)) for s in kept])
