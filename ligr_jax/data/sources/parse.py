"""Parsers of single columns, from values of a file to values of prepared data.

A parser takes a column [N] and returns its values without nulls, [N] or [N, W], and the rows that
violate a rule. It raises `TypeError` if the type of the column cannot hold such values.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import polars as pl

from ligr_jax.data.bags import Bags
from ligr_jax.data.schema import UNKNOWN, Column
from ligr_jax.data.sources.ids import parse_ids
from ligr_jax.data.sources.rules import OR_SKIP, SKIP_HINT, Rules
from ligr_jax.data.sources.source import Fault, LogBatch
from ligr_jax.data.sources.text_lists import BRACKETS, parse_lists

DAY_MS = 86_400_000
LABEL_RULE = f"is not a label (0 or 1, null if unknown); {SKIP_HINT}"

Parsed = tuple[np.ndarray, Rules]
Parser = Callable[[pl.Series], Parsed | tuple[Bags, Rules]]
PolarsType = pl.DataType | type[pl.DataType]


def feature_parser(name: str, column: Column, text: bool) -> Parser:
    """Return the parser of a feature column.

    Args:
        name: name of the feature; `item_id` is required in every row.
        column: the feature.
        text: as in `parse_ids`.
    """
    if column.kind == "vector":
        return lambda v: parse_vectors(v, column.width)
    if column.kind == "bag":
        return lambda v: parse_bags(v, column.separator, text)
    if column.kind == "numeric":
        return parse_numbers
    if name == "item_id":
        return lambda v: parse_required_ids(v, text)
    return lambda v: parse_ids(v, text)


def parse_required_ids(values: pl.Series, text: bool = True) -> Parsed:
    """Parse ids to int64; a missing id violates a rule."""
    out, rules = parse_ids(values, text)
    missing = values.fill_nan(None) if values.dtype.is_float() else values
    return out, [(missing.is_null().to_numpy(), f"is not an id; {SKIP_HINT}"), *rules]


def parse_timestamps(values: pl.Series) -> Parsed:
    """Parse times to int64 milliseconds since 1970 (UTC); dates and datetimes are converted."""
    if isinstance(values.dtype, pl.Datetime) or values.dtype == pl.Date:
        numeric = values.dt.epoch("ms")
    elif values.dtype in (pl.String, pl.Null) or values.dtype.is_integer():
        numeric = values.cast(pl.Int64, strict=False)
    else:
        raise TypeError(f"{values.dtype} values are not integer milliseconds since 1970 (UTC)")
    ms = numeric.fill_null(0).to_numpy()
    latest = time.time_ns() // 1_000_000 + DAY_MS
    future = (
        "is in the future; timestamp_ms has milliseconds since 1970 (UTC): divide microseconds by "
        f"1,000{OR_SKIP}"
    )
    return ms, [
        (numeric.is_null().to_numpy(), f"is not an integer number of milliseconds; {SKIP_HINT}"),
        (ms < 0, f"is a negative time; {SKIP_HINT}"),
        (ms > latest, future),
    ]


def parse_labels(values: pl.Series) -> Parsed:
    """Parse labels to int8: 0, 1, or `UNKNOWN` for null and NaN."""
    if not (values.dtype in (pl.String, pl.Boolean, pl.Null) or values.dtype.is_numeric()):
        raise TypeError(f"{values.dtype} values are not labels (0, 1, or null if unknown)")
    if values.dtype.is_integer() and values.is_between(0, 1).all():  # nulls are ignored
        labels = values.cast(pl.Int8).fill_null(UNKNOWN).to_numpy()
        return labels, [(np.zeros(len(values), bool), LABEL_RULE)]
    numeric = _as_numbers(values)
    number = numeric.to_numpy()  # NaN where null
    known = ~np.isnan(number)
    bad = known & (number != 1) & (number != 0)
    if numeric.null_count() > values.null_count():
        bad |= (numeric.is_null() & values.is_not_null()).to_numpy()
    out = np.where(known, number == 1, UNKNOWN).astype(np.int8)
    return out, [(bad, LABEL_RULE)]


def parse_numbers(values: pl.Series) -> Parsed:
    """Parse numbers to float32, NaN for null; true and false are 1 and 0."""
    if not (values.dtype in (pl.String, pl.Boolean, pl.Null) or values.dtype.is_numeric()):
        raise TypeError(f"{values.dtype} values are not numbers")
    text = np.zeros(len(values), bool)
    if values.dtype == pl.Float32:
        narrow = values.fill_null(np.nan).to_numpy()
    else:
        wide = _as_numbers(values)
        if wide.null_count() > values.null_count():
            text = (wide.is_null() & values.is_not_null()).to_numpy()
        with np.errstate(over="ignore"):
            narrow = wide.to_numpy().astype(np.float32)  # NaN where null
    return narrow, [
        (text, f"is not a number; {SKIP_HINT}, or list words for missing values in --null-values"),
        (np.isinf(narrow), f"is infinite in float32; write null if missing, or {SKIP_HINT}"),
    ]


def parse_weights(values: pl.Series) -> Parsed:
    """Parse weights to float32 >= 0, 1 for null."""
    numbers, rules = parse_numbers(values)
    out = np.where(values.is_null().to_numpy(), np.float32(1), numbers)
    return out, [*rules, (~(out >= 0), f"is not a weight (>= 0); {SKIP_HINT}")]


def parse_probabilities(values: pl.Series) -> Parsed:
    """Parse probabilities to float32 in [0, 1], NaN for null."""
    out, rules = parse_numbers(values)
    return out, [*rules, ((out < 0) | (out > 1), f"is not a probability; {SKIP_HINT}")]


def parse_vectors(values: pl.Series, width: int) -> Parsed:
    """Parse vectors to float32 [N, width] from lists or text: "[0.1, 0.2]", "[0.1 0.2]"."""
    lists = as_lists(values)
    fits = (lists.list.len() == width).fill_null(False)
    out = np.zeros((len(lists), width), np.float32)
    flat = lists.filter(fits).explode(empty_as_null=False).cast(pl.Float64).fill_null(np.nan)
    with np.errstate(over="ignore"):
        out[fits.to_numpy()] = flat.to_numpy().reshape(-1, width)
    return out, [
        (~fits.to_numpy(), f"is not a vector of length {width}; {SKIP_HINT}"),
        (~np.all(np.isfinite(out), axis=1), f"contains NaN, null or infinity; {SKIP_HINT}"),
    ]


def parse_bags(values: pl.Series, separator: str = "|", text: bool = True) -> tuple[Bags, Rules]:
    """Parse bags of ids from lists, or from text such as "a|b|c" or "['a', 'b']".

    Args:
        values: lists or text, [N].
        separator: text between the ids of a bag.
        text: as in `parse_ids`.

    Returns:
        Bags without null ids and empty text; and the rows that violate a rule.
    """
    rules: Rules = []
    if values.dtype == pl.Null:
        return Bags.empty(len(values)), rules
    if values.dtype == pl.String:
        in_brackets = values.str.contains(BRACKETS).any()
        lists = parse_lists(values, separator) if in_brackets else values.str.split(separator)
    elif isinstance(values.dtype, pl.Array):
        lists = values.arr.to_list()
    else:
        lists = values
    if not isinstance(lists.dtype, pl.List):
        raise TypeError(f"{lists.dtype} values are not lists of ids")
    lengths = lists.list.len().fill_null(0).to_numpy()
    flat = lists.filter(lists.list.len() > 0).explode(empty_as_null=False)
    if values.dtype == pl.String:
        flat = flat.str.strip_chars()
        flat = flat.set(flat == "", None)
    elements, broken = parse_ids(flat, text)
    row = np.repeat(np.arange(len(lists)), lengths)
    rules += [
        (np.bincount(row[e], minlength=len(lists)) > 0, f"contains an id that {r}")
        for e, r in broken
    ]
    return Bags.from_lengths(lengths, elements), rules


def _as_numbers(values: pl.Series) -> pl.Series:
    """Return values as Float64, null if text is not a number; true and false are 1 and 0."""
    numbers = values.cast(pl.Float64, strict=False)
    if values.dtype == pl.String and numbers.null_count() > values.null_count():
        words = values.str.to_lowercase().replace({"true": "1", "false": "0"})
        numbers = words.cast(pl.Float64, strict=False)
    return numbers


def as_lists(values: pl.Series) -> pl.Series:
    """Return a column of lists of numbers, from lists, arrays or text."""
    if values.dtype == pl.String:
        parts = values.str.strip_chars("[]() \n").str.replace_all(r"[,\s]+", ",").str.split(",")
        return parts.list.eval(pl.element().str.strip_chars().cast(pl.Float64, strict=False))
    if isinstance(values.dtype, pl.Array):
        values = values.arr.to_list()
    dtype = values.dtype
    if isinstance(dtype, pl.List) and dtype.inner in pl.datatypes.group.NUMERIC_DTYPES:
        return values
    raise TypeError(f"{dtype} values are not lists of numbers")


def with_types(batch: LogBatch, types: Mapping[str, PolarsType]) -> LogBatch:
    """Cast the text columns of a batch, for adapters that compute with columns.

    Args:
        batch: the batch.
        types: types of columns, by name.

    Returns:
        The batch with `text=False`. Values that cannot be cast are faults.
    """
    frame, faults = batch.frame, list(batch.faults)
    casts = {}
    for name, dtype in types.items():
        if name in frame.columns and frame[name].dtype == pl.String:
            casts[name] = frame[name].cast(dtype, strict=False)
            if dtype == pl.Int64:
                whole = frame[name].str.replace(r"\.0*$", "").cast(dtype, strict=False)
                casts[name] = casts[name].fill_null(whole)
            bad = (casts[name].is_null() & frame[name].is_not_null()).to_numpy()
            faults.append(Fault(name, bad, frame[name], f"is not {dtype}; {SKIP_HINT}"))
    frame = frame.with_columns(**casts)
    return replace(batch, frame=frame, text=False, faults=tuple(faults))
