"""Validation of batches and item tables by the rules of the canonical log.

Every column is parsed by `ligr_jax.data.sources.parse`. The first fault is raised as a `BadInput`
with file, row, column, value and remedy, or the invalid rows are dropped.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import NoReturn

import numpy as np
import polars as pl

from ligr_jax.data.bags import Bags
from ligr_jax.data.columns import action_column, feature_column, truth_column
from ligr_jax.data.manifest import MISSING
from ligr_jax.data.schema import (
    MEMBER,
    RANDOM,
    SESSION,
    TIME,
    UNKNOWN,
    WEIGHT,
    BadInput,
    Column,
)
from ligr_jax.data.sources.parse import (
    Parser,
    feature_parser,
    parse_labels,
    parse_probabilities,
    parse_required_ids,
    parse_timestamps,
    parse_weights,
)
from ligr_jax.data.sources.rules import format_value
from ligr_jax.data.sources.skipped import SkippedRows, refuse_systematic
from ligr_jax.data.sources.source import ROW_DIGEST, Fault, LogBatch, LogSource, OnBadRow

UNTIMED = -1  # time of context rows


def canonical_frame(
    batch: LogBatch,
    source: LogSource,
    on_bad_row: OnBadRow,
    timed: bool = True,
    skipped: SkippedRows | None = None,
) -> tuple[pl.DataFrame, int]:
    """Validate a batch.

    Args:
        batch: the batch.
        source: its log.
        on_bad_row: whether an invalid row is an error or is dropped.
        timed: whether the rows have times and labels, which context rows lack.
        skipped: counts the invalid rows that are dropped.

    Returns:
        The valid rows without nulls, and the number of invalid rows. The columns are member_id,
        timestamp_ms, [session_id], weight, is_random, labels, features of the log (features of the
        item table are joined later), true probabilities, and `ROW_DIGEST`; see
        `ligr_jax.data.columns` for their names.

    Raises:
        BadInput: a column is absent or has a wrong type, or a row is not valid.
    """
    frame, faults = batch.frame, list(batch.faults)
    _require_columns(batch, source, timed)
    out: list[pl.Series] = []
    known: dict[str, np.ndarray] = {}
    for name, (column, parser, default) in _log_parsers(source, batch.text).items():
        if column and column in frame.columns and not (name in (TIME, SESSION) and not timed):
            values, column_faults = parse_column(batch, source, column, parser)
            faults += column_faults
            if parser is parse_labels and isinstance(values, np.ndarray):
                known[column] = values
        else:
            values = default[np.zeros(frame.height, np.int64)]
        out.append(_series(name, values))
    digest = frame[ROW_DIGEST] if ROW_DIGEST in frame.columns else frame.hash_rows(seed=0)
    result = pl.DataFrame([*out, digest.alias(ROW_DIGEST)])
    if on_bad_row == "error":
        refuse_systematic(batch, source, faults, partial(_faults_of, source=source))
    elif skipped is not None:
        skipped.add(batch, faults, known)
    return drop_faults(result, batch, source, faults, on_bad_row)


def _faults_of(batch: LogBatch, column: str, source: LogSource) -> Iterator[Fault]:
    """Yield the faults of a column of a batch."""
    yield from (fault for fault in batch.faults if fault.column == column)
    for name, parser, _ in _log_parsers(source, batch.text).values():
        if name == column and name in batch.frame.columns:
            yield from parse_column(batch, source, name, parser)[1]


Parsers = dict[str, tuple[str | None, Parser, np.ndarray | Bags]]


def _log_parsers(source: LogSource, text: bool) -> Parsers:
    """Return the parsers of a log by prepared column, in order.

    Each entry has the column of the log or None, the parser, and the value of a row without the
    column.
    """
    schema = source.schema
    ids = partial(parse_required_ids, text=text)
    unknown, nan = np.array([UNKNOWN], np.int8), np.array([np.nan], np.float32)
    out: Parsers = {
        MEMBER: (MEMBER, ids, np.array([0])),
        TIME: (TIME, parse_timestamps, np.array([UNTIMED])),
    }
    if source.sessions and has_role(SESSION, source):
        out[SESSION] = (SESSION, ids, np.array([0]))
    weight, random = (name if has_role(name, source) else None for name in (WEIGHT, RANDOM))
    out[WEIGHT] = (
        weight if source.weight is None else source.weight,
        parse_weights,
        np.ones(1, np.float32),
    )
    out[RANDOM] = (random, parse_labels, unknown)
    out |= {action_column(a): (a, parse_labels, unknown) for a in schema.actions}
    for name, column in log_columns(source).items():
        out[feature_column(name)] = (name, feature_parser(name, column, text), _absent(column))
    if schema.truth:
        out |= {truth_column(a): (f"p_{a}", parse_probabilities, nan) for a in schema.actions}
    return out


def has_role(name: str, source: LogSource) -> bool:
    """Return whether a column `session_id`, `weight` or `is_random` has the role of its name.

    A column that is an action has no other role, and neither has a feature `weight` or `is_random`.
    A feature `session_id` also defines the sessions.
    """
    features = () if name == SESSION else log_columns(source)
    return name not in source.schema.actions and name not in features


def parse_column(
    batch: LogBatch, source: LogSource, name: str, parser: Parser
) -> tuple[np.ndarray | Bags, list[Fault]]:
    """Parse a column.

    Returns:
        Its values, and its faults.

    Raises:
        BadInput: the type of the column is wrong.
    """
    series = batch.frame[name].alias("values")  # polars interprets ^x$ as a pattern
    try:
        values, rules = parser(series)
    except TypeError as e:
        _refuse_type(batch, source, name, str(e))
    return values, [Fault(name, rows, series, rule) for rows, rule in rules]


def canonical_items(
    batch: LogBatch, source: LogSource, columns: Mapping[str, Column]
) -> tuple[dict[str, np.ndarray | Bags], np.ndarray]:
    """Validate a batch of an item table.

    Args:
        batch: the batch, with N items.
        source: the log.
        columns: features to read.

    Returns:
        `item_id` and the features by name, and whether an item has all of its vectors, bool [N].

    Raises:
        BadInput: an item is not valid. Only a missing vector is allowed.
    """
    if "item_id" not in source.schema.columns:
        raise BadInput("an item table needs a categorical column item_id in the log's schema")
    frame, faults = batch.frame, list(batch.faults)
    out: dict[str, np.ndarray | Bags] = {}
    has_vectors = np.ones(frame.height, bool)
    for name, column in {"item_id": source.schema.columns["item_id"], **columns}.items():
        if name not in frame.columns:
            raise BadInput(f"{batch.file}: no column {name!r}; its columns are {frame.columns}")
        parser = feature_parser(name, column, batch.text)
        out[name], column_faults = parse_column(batch, source, name, parser)
        if column.kind == "vector":
            absent = frame[name].is_null().to_numpy()
            has_vectors &= ~absent
            column_faults = [replace(f, rows=f.rows & ~absent) for f in column_faults]
        faults += column_faults
    drop_faults(frame, batch, source, faults, "error")
    return out, has_vectors


def log_columns(source: LogSource) -> dict[str, Column]:
    """Return the features that are columns of the log and not of its item table."""
    items = source.items.columns if source.items else []
    return {k: c for k, c in source.schema.columns.items() if k not in items or k == "item_id"}


def check_roles(source: LogSource) -> None:
    """Check that no column is both a feature and a label or true probability.

    Raises:
        BadInput: a column has both roles.
    """
    schema = source.schema
    truth_columns = [f"p_{a}" for a in schema.actions] if schema.truth else []
    for role, answers in (("an action", schema.actions), ("a true probability", truth_columns)):
        both = [name for name in answers if name in log_columns(source)]
        if both:
            raise BadInput(
                f"the log's columns {both} are each {role} and a feature, which leaks the label; "
                "remove them from the features"
            )


def drop_faults(
    frame: pl.DataFrame,
    batch: LogBatch,
    source: LogSource,
    faults: list[Fault],
    on_bad_row: OnBadRow,
) -> tuple[pl.DataFrame, int]:
    """Raise the first fault, or drop invalid rows.

    Args:
        frame: parsed rows of the batch.
        batch: the batch.
        source: its log.
        faults: faults of the batch.
        on_bad_row: whether a fault is an error.

    Returns:
        The valid rows, and the number of rows that were dropped.

    Raises:
        BadInput: there is a fault and `on_bad_row` is "error".
    """
    faults = [f for f in faults if f.rows.any()]
    if not faults:
        return frame, 0
    if on_bad_row == "error":
        first = min(faults, key=lambda f: int(f.rows.argmax()))
        row = int(first.rows.argmax())
        raise BadInput(
            f"{batch.file}, row {batch.row_number(row)}, "
            f"column {source.display_name(first.column)}: value {format_value(first.values[row])} "
            f"{first.rule}"
        )
    bad = np.logical_or.reduce([f.rows for f in faults])
    return frame.filter(pl.Series(~bad)), int(bad.sum())


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return a suggestion of the most similar name, or ""."""
    close = difflib.get_close_matches(name, list(names), 1, 0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _require_columns(batch: LogBatch, source: LogSource, timed: bool) -> None:
    """Raise `BadInput` if a batch lacks a column."""
    needed = [MEMBER]
    if timed:
        truth = [f"p_{a}" for a in source.schema.actions] if source.schema.truth else []
        session = [SESSION] if source.sessions else []
        needed += [TIME, *session, *source.schema.actions, *log_columns(source), *truth]
    present = [c for c in batch.frame.columns if c != ROW_DIGEST]
    for name in needed:
        if name not in present:
            raise BadInput(
                f"{batch.file}: no column {source.display_name(name)}; its columns are {present}"
                f"{did_you_mean(name, present)}. Add the column, or remove it from the log's schema"
            )


def _series(name: str, values: np.ndarray | Bags) -> pl.Series:
    return values.to_series(name) if isinstance(values, Bags) else pl.Series(name, values)


def _absent(column: Column) -> np.ndarray | Bags:
    """Return the value of a row without the column."""
    if column.kind == "categorical":
        return np.array([MISSING])
    if column.kind == "bag":
        return Bags.empty(1)
    if column.kind == "numeric":
        return np.array([np.nan], np.float32)
    return np.zeros((1, column.width), np.float32)


def _refuse_type(batch: LogBatch, source: LogSource, name: str, problem: str) -> NoReturn:
    """Raise `BadInput` for a column of a wrong type, with its first value."""
    values = batch.frame[name]
    present = values.is_not_null()
    row = present.arg_max() or 0
    raise BadInput(
        f"{batch.file}, row {batch.row_number(row)}, column {source.display_name(name)}: value "
        f"{format_value(values[row])}: {problem}; cast the column when the log is written"
    )
