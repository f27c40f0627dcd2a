"""Errors that hold for a whole column: skipping its rows would drop most of the log.

Missing values are no such error, because a log may have rows without a member or a time.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
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
WITH_COMMA = re.compile(r"'[-+]?[\d,.]*\d,\d[\d,.]*'$")  # a number such as '57,93', in quotes


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


def remedy_of(rule: str, source: LogSource, example: str) -> str:
    """Return the remedy of a rule for a whole column, without skipping rows.

    Args:
        rule: the rule.
        source: the log.
        example: text that ends with a value that violates the rule, by `format_value`.
    """
    if rule.startswith("is not a number") and WITH_COMMA.search(example):
        return "write numbers with a decimal point and no other separator, e.g. 1234.5"
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
        found = [f for f in faults_of(other, fault.column) if problem_of(f.rule) == problem]
        if found:
            # Two parsers can have one rule: that of the time format, and that of milliseconds.
            present = found[0].values.is_not_null()
            rows = np.logical_or.reduce([f.rows for f in found])
            tally.rows += len(present)
            tally.values += int(present.sum())
            tally.bad += int((present & pl.Series(rows)).sum())
        if tally.rows >= SCANNED_ROWS:
            break
    where = f"{batch.file}, column {source.display_name(fault.column)}"
    invalid = fault.rows & fault.values.is_not_null().to_numpy()
    row = int((invalid if invalid.any() else fault.rows).argmax())
    value = format_value(fault.values[row])
    remedy = remedy_of(fault.rule, source, value)
    if tally.rows > 1 and not tally.values:
        raise BadInput(f"{where}: the column has no values; {remedy}")
    if tally.bad > 1 and tally.bad > MOST * tally.values:
        raise BadInput(
            f"{where}: value {value} (row {batch.row_number(row)}) {problem}, like {tally.bad:,} "
            f"of {tally.values:,} values; {remedy}"
        )
