"""Which rows of a table of runs are fitted: conditions, marks of runs, copies; labels."""

import difflib
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from ligr_jax.data.schema import BadInput
from ligr_jax.runs.numbers import number_of_cell

CONDITION = re.compile(r"([^=<>!]+)(!=|<=|>=|=|<|>)(.*)")
OPERATORS: dict[str, Callable[[Any, Any], pl.Series]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
NUMBERED = re.compile(r"#\d+")  # names that the reader gives to rows without a run


def text_column(table: pl.DataFrame, name: str) -> list[str]:
    """Return a column as text, null as "".

    Raises:
        BadInput: the table has no such column; the message has the nearest names.
    """
    if name not in table.columns:
        near = difflib.get_close_matches(name, table.columns, 4, 0.4)
        raise BadInput(f"the runs have no column {name!r}; nearest: {near or table.columns[:8]}")
    return table[name].cast(pl.String).fill_null("").to_list()


def distinct(table: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """Keep the first of rows that are equal in every column.

    Copies of a row are no further evidence: counted as runs, they would narrow every interval.

    Returns:
        The table, and a note with the number of copies; empty if there are none.
    """
    numbered = all(NUMBERED.fullmatch(name) for name in table["run"])
    values = [c for c in table.columns if not (numbered and c == "run")]
    kept = table.unique(values, keep="first", maintain_order=True)
    copies = len(table) - len(kept)
    if not copies:
        return table, ""
    return kept, f"{copies} of {len(table)} rows repeat another row in every column; left out"


def select(table: pl.DataFrame, conditions: Sequence[str]) -> pl.DataFrame:
    """Keep the rows that satisfy every condition, e.g. `negatives=100` or `N>=1e6`.

    Raises:
        BadInput: a condition is not COLUMN, an operator and a value, the value is not a number for
            a numeric column, or no row remains.
    """
    for condition in conditions:
        parts = CONDITION.fullmatch(condition)
        if not parts:
            raise BadInput(f"--where {condition}: give COLUMN=VALUE (or !=, <, <=, >, >=)")
        name, relation, text = (part.strip() for part in parts.groups())
        text_column(table, name)  # refuses a column that the table lacks
        values = table[name]
        number = number_of_cell(text)
        if values.dtype.is_numeric():
            if number is None:
                raise BadInput(
                    f"--where {condition}: {name} is numeric, and {text!r} is not a number"
                )
            kept = OPERATORS[relation](values, number)
        elif number is not None and relation not in ("=", "!="):
            raise BadInput(
                f"--where {condition}: {name} has text, e.g. {values.drop_nulls()[0]!r}, which has "
                "no order among numbers; correct its cells"
            )
        else:
            kept = OPERATORS[relation](values.cast(pl.String), text)
        remaining = table.filter(kept.fill_null(False))
        if remaining.is_empty():
            some = [str(v) for v in values.unique().sort().head(8)]
            raise BadInput(f"--where {condition}: no row remains; {name} has {', '.join(some)}")
        table = remaining
    return table


def marks(
    table: pl.DataFrame, which: str, metric: str, lower: bool, run: str, epoch: str
) -> tuple[pl.DataFrame, list[str]]:
    """Keep one mark of each run.

    Args:
        table: rows, several of each run.
        which: "best" (by the metric), "last" (by the epoch) or "all".
        metric: column of the metric.
        lower: lower is better.
        run: column of the run.
        epoch: column of the epoch, or of another measure of progress.

    Returns:
        The rows, in the order of the table, and notes: the runs whose best mark is their first or
        their last, so that the true best may lie outside the marks.
    """
    text_column(table, run)
    if which == "all":
        return table, []
    text_column(table, epoch)
    rows = table.with_row_index("row of the table")
    parts = [part.sort(epoch) for part in rows.partition_by(run, maintain_order=True)]
    best = [(part[metric].arg_min() if lower else part[metric].arg_max()) or 0 for part in parts]
    chosen = best if which == "best" else [len(part) - 1 for part in parts]
    numbers = [part["row of the table"][k] for part, k in zip(parts, chosen)]
    notes = []
    several = [(part, k) for part, k in zip(parts, best) if len(part) > 1]
    for end, count in (
        ("first", sum(k == 0 for _, k in several)),
        ("last", sum(k == len(part) - 1 for part, k in several)),
    ):
        if which == "best" and count:
            notes.append(
                f"the best mark of {count} of {len(parts)} runs is their {end}: their best may lie "
                f"{'before' if end == 'first' else 'after'} it"
            )
    return table[sorted(numbers)], notes
