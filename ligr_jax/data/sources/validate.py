"""The rules of the canonical log, applied to a batch or an item table.

Every column goes through its parser (`ligr_jax.data.sources.parse`); the first fault is raised as a
`BadInput` (file, row, column, value, remedy), or the bad rows are left out.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import NoReturn

import numpy as np
import polars as pl

from ligr_jax.data.bags import Bags
from ligr_jax.data.columns import action, feature, truth
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
    labels,
    probabilities,
    required_ids,
    timestamps,
    weights,
)
from ligr_jax.data.sources.skipped import Skipped, refuse_coding, shown
from ligr_jax.data.sources.source import ROW_DIGEST, Fault, LogBatch, OnBadRow, Source

UNTIMED = -1  # timestamp of context rows


def canonical_frame(
    batch: LogBatch,
    source: Source,
    on_bad_row: OnBadRow,
    timed: bool = True,
    skipped: Skipped | None = None,
) -> tuple[pl.DataFrame, int]:
    """The batch as the prepared form has it, and the number of bad rows left out.

    Columns: member_id, timestamp_ms, [session_id], weight, is_random, `ROW_DIGEST`, and by their
    role (`ligr_jax.data.columns`) actions, features of the log itself (those of the item table are
    joined later) and truth; no nulls anywhere.
    skipped: counts the bad rows that are left out.
    Raises `BadInput` for a missing column or a wrong type, and for a bad row with "error".
    """
    frame, faults = batch.frame, list(batch.faults)
    _require_columns(batch, source, timed)
    out: list[pl.Series] = []
    known: dict[str, np.ndarray] = {}
    for name, (column, parser, default) in _log_parsers(source, batch.text).items():
        if column and column in frame.columns and not (name in (TIME, SESSION) and not timed):
            values, found = parse_column(batch, source, column, parser)
            faults += found
            if parser is labels and isinstance(values, np.ndarray):
                known[column] = values
        else:
            values = default[np.zeros(frame.height, np.int64)]
        out.append(_series(name, values))
    digest = frame[ROW_DIGEST] if ROW_DIGEST in frame.columns else frame.hash_rows(seed=0)
    result = pl.DataFrame([*out, digest.alias(ROW_DIGEST)])
    if on_bad_row == "error":
        refuse_coding(batch, source, faults)
    elif skipped is not None:
        skipped.add(batch, faults, known)
    return drop_faults(result, batch, source, faults, on_bad_row)


Parsers = dict[str, tuple[str | None, Parser, np.ndarray | Bags]]


def _log_parsers(source: Source, text: bool) -> Parsers:
    """By canonical column, in order: the column of the log that holds it (None: none does), its
    parser, and the value of one row where it is absent."""
    schema = source.schema
    ids = partial(required_ids, text=text)
    unknown, nan = np.array([UNKNOWN], np.int8), np.array([np.nan], np.float32)
    out: Parsers = {
        MEMBER: (MEMBER, ids, np.array([0])),
        TIME: (TIME, timestamps, np.array([UNTIMED])),
    }
    if source.sessions and has_role(SESSION, source):
        out[SESSION] = (SESSION, ids, np.array([0]))
    weight, random = (name if has_role(name, source) else None for name in (WEIGHT, RANDOM))
    out[WEIGHT] = (
        weight if source.weight is None else source.weight,
        weights,
        np.ones(1, np.float32),
    )
    out[RANDOM] = (random, labels, unknown)
    out |= {action(a): (a, labels, unknown) for a in schema.actions}
    for name, column in log_columns(source).items():
        out[feature(name)] = (name, feature_parser(name, column, text), _absent(column))
    if schema.truth:
        out |= {truth(a): (f"p_{a}", probabilities, nan) for a in schema.actions}
    return out


def has_role(name: str, source: Source) -> bool:
    """Whether a column `session_id`, `weight` or `is_random` is what its name says.

    An action of that name is an action alone, and a feature `weight` or `is_random` a feature
    alone; sessions may be a feature besides.
    """
    features = () if name == SESSION else log_columns(source)
    return name not in source.schema.actions and name not in features


def parse_column(
    batch: LogBatch, source: Source, name: str, parser: Parser
) -> tuple[np.ndarray | Bags, list[Fault]]:
    """Values and faults of one column; raises `BadInput` where its type is wrong."""
    series = batch.frame[name].alias("values")  # polars takes a name such as ^x$ for a pattern
    try:
        values, rules = parser(series)
    except TypeError as e:
        _refuse_type(batch, source, name, str(e))
    return values, [Fault(name, rows, series, rule) for rows, rule in rules]


def canonical_items(
    batch: LogBatch, source: Source, columns: Mapping[str, Column]
) -> tuple[dict[str, np.ndarray | Bags], np.ndarray]:
    """Of an item table's batch `item_id` and `columns`, and bool [items], whether an item has its
    vectors.

    A null vector means that the item has none. Raises `BadInput` for every other fault: a table of
    items is small enough to be mended.
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
        out[name], found = parse_column(batch, source, name, parser)
        if column.kind == "vector":
            absent = frame[name].is_null().to_numpy()
            has_vectors &= ~absent
            found = [replace(f, rows=f.rows & ~absent) for f in found]
        faults += found
    drop_faults(frame, batch, source, faults, "error")
    return out, has_vectors


def log_columns(source: Source) -> dict[str, Column]:
    """Feature columns that the log itself holds, not its item table."""
    items = source.items.columns if source.items else []
    return {k: c for k, c in source.schema.columns.items() if k not in items or k == "item_id"}


def check_roles(source: Source) -> None:
    """Raises `BadInput` where a column of the log would be both a feature and an answer."""
    schema = source.schema
    truth_columns = [f"p_{a}" for a in schema.actions] if schema.truth else []
    for role, answers in (("an action", schema.actions), ("a true probability", truth_columns)):
        both = [name for name in answers if name in log_columns(source)]
        if both:
            raise BadInput(
                f"the log's columns {both} are each {role} and a feature: the model would read its "
                "own answer; leave them out of the features"
            )


def drop_faults(
    frame: pl.DataFrame, batch: LogBatch, source: Source, faults: list[Fault], on_bad_row: OnBadRow
) -> tuple[pl.DataFrame, int]:
    """Raises the earliest row's fault, or filters `frame`; returns it and the rows left out."""
    faults = [f for f in faults if f.rows.any()]
    if not faults:
        return frame, 0
    if on_bad_row == "error":
        first = min(faults, key=lambda f: int(f.rows.argmax()))
        row = int(first.rows.argmax())
        raise BadInput(
            f"{batch.file}, row {batch.first_row + row}, column {source.shown_name(first.column)}: "
            f"value {shown(first.values[row])} {first.rule}"
        )
    bad = np.logical_or.reduce([f.rows for f in faults])
    return frame.filter(pl.Series(~bad)), int(bad.sum())


def nearest(name: str, names: Iterable[str]) -> str:
    """A `did you mean` clause, or nothing."""
    close = difflib.get_close_matches(name, list(names), 1, 0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _require_columns(batch: LogBatch, source: Source, timed: bool) -> None:
    needed = [MEMBER]
    if timed:
        truth = [f"p_{a}" for a in source.schema.actions] if source.schema.truth else []
        session = [SESSION] if source.sessions else []
        needed += [TIME, *session, *source.schema.actions, *log_columns(source), *truth]
    there = [c for c in batch.frame.columns if c != ROW_DIGEST]
    for name in needed:
        if name not in there:
            raise BadInput(
                f"{batch.file}: no column {source.shown_name(name)}; its columns are {there}"
                f"{nearest(name, there)}. Add the column, or take it out of the log's schema"
            )


def _series(name: str, values: np.ndarray | Bags) -> pl.Series:
    return values.series(name) if isinstance(values, Bags) else pl.Series(name, values)


def _absent(column: Column) -> np.ndarray | Bags:
    """The value of one row without the column."""
    if column.kind == "categorical":
        return np.array([MISSING])
    if column.kind == "bag":
        return Bags.empty(1)
    if column.kind == "numeric":
        return np.array([np.nan], np.float32)
    return np.zeros((1, column.width), np.float32)


def _refuse_type(batch: LogBatch, source: Source, name: str, problem: str) -> NoReturn:
    values = batch.frame[name]
    present = values.is_not_null()
    row = present.arg_max() or 0
    raise BadInput(
        f"{batch.file}, row {batch.first_row + row}, column {source.shown_name(name)}: value "
        f"{shown(values[row])}: {problem}; cast the column where the log is written"
    )
