"""Errors that hold for a whole column: skipping its rows would drop most of the log.

Missing values are no such error, because a log may have rows without a member or a time.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.rules import OR_SKIP, SKIP_HINT, format_value
from ligr_jax.data.sources.source import Fault, LogBatch, LogSource

MOST = 1 / 3  # larger shares of invalid values are an error of the column
SCANNED_ROWS = 2_000_000  # rows read to distinguish an error of the column from invalid rows
BATCH_ROWS = 1 << 17

# Start of a rule -> what a user of `ligr prepare` can do about a column of such values.
REMEDIES: Mapping[str, str] = {
    "is not a number to compare": "compare words with == or in, e.g. --label 'click=event in a|b'",
    "is not a number": (
        "list words for missing values in --null-values, or declare the column as --categorical"
    ),
    "is not an id": "name another column with --map",
    "is not a weight": "name another column in --weight",
    "is not a vector": "declare the column as --bag, or write vectors of one length",
    "contains NaN": "remove the column from --vector, or write vectors of finite numbers",
    "is infinite": "list words for missing values in --null-values",
    "is not a time": "set --time-format or --time-unit of the column",
    "is in the future": "set --time-unit or --time-format of the column",
    "is before 1990": "set --time-unit or --time-format of the column",
    "is a negative time": "set --time-unit and --time-origin, the start of the count",
}


@dataclass
class ColumnTally:
    """Counts of the values of a column.

    Attributes:
        rows: number of rows.
        values: number of values that are present.
        bad: number of values that violate a rule.
    """

    rows: int = 0
    values: int = 0
    bad: int = 0


def problem_of(rule: str) -> str:
    """Return the violation of a rule, without its remedy."""
    return rule.replace(OR_SKIP, "").split(";")[0]


def remedy_of(rule: str, source: LogSource) -> str:
    """Return the remedy of a rule for a whole column, without skipping rows."""
    if source.name == "table":
        for start, remedy in REMEDIES.items():
            if rule.startswith(start):
                return remedy
    _, _, remedy = rule.partition("; ")
    remedy = remedy.replace(f"or {SKIP_HINT}", "").replace(OR_SKIP, "").strip(" ,")
    return remedy if remedy not in ("", "correct it") else "correct the column"


def refuse_column(
    batch: LogBatch,
    source: LogSource,
    fault: Fault,
    faults_of: Callable[[LogBatch, str], Iterable[Fault]],
) -> None:
    """Check that a fault is not due to most values of its column.

    Up to `SCANNED_ROWS` rows are read, because a batch can have too few rows.

    Args:
        batch: the batch with the fault.
        source: the log.
        fault: the first fault of the batch.
        faults_of: returns the faults of a column in a batch.

    Raises:
        BadInput: most values of the column have this fault, or it has no values.
    """
    tally, problem = ColumnTally(), problem_of(fault.rule)
    for other in source.batches(BATCH_ROWS, "skip"):
        for found in faults_of(other, fault.column):
            if problem_of(found.rule) == problem:
                present = found.values.is_not_null()
                tally.rows += len(present)
                tally.values += int(present.sum())
                tally.bad += int((present & pl.Series(found.rows)).sum())
        if tally.rows >= SCANNED_ROWS:
            break
    where = f"{batch.file}, column {source.display_name(fault.column)}"
    remedy = remedy_of(fault.rule, source)
    if tally.rows > 1 and not tally.values:
        raise BadInput(f"{where}: the column has no values; {remedy}")
    if tally.bad > 1 and tally.bad > MOST * tally.values:
        invalid = fault.rows & fault.values.is_not_null().to_numpy()
        row = int((invalid if invalid.any() else fault.rows).argmax())
        raise BadInput(
            f"{where}: value {format_value(fault.values[row])} (row {batch.row_number(row)}) "
            f"{problem}, like {tally.bad:,} of {tally.values:,} values; {remedy}"
        )
