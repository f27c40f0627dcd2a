"""Normalization of cells, so that files with and without types give the same values.

Outer white space of text is removed. Empty text and the words of `--null-values` are missing
values. Dictionary-encoded values (categoricals, enums) and bytes become text.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa
from polars.datatypes import DataTypeClass

from ligr_jax.data.sources.text_lists import BRACKETS, parse_lists

_TEXT = (pl.Categorical, pl.Enum, pl.Binary)


def clean_cells(table: pa.Table, null_values: Sequence[str] = ()) -> pl.DataFrame:
    """Return a table with normalized cells.

    Args:
        table: rows of a file.
        null_values: words that stand for a missing value.
    """
    for k, column in enumerate(table.schema):
        if pa.types.is_decimal256(column.type):  # polars does not support it
            table = table.set_column(k, column.name, table[k].cast(pa.string()))
        elif isinstance(column.type, pa.UuidType):
            table = table.set_column(k, column.name, _uuid_text(table[k]))
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    words = _spellings(null_values)
    changed = []
    for values, column in zip(frame.iter_columns(), table.columns):
        new = _cleaned(values, words) if words or not _is_tidy(column) else None
        if new is not None:
            changed.append(new.alias(values.name))
    return frame.with_columns(changed)


def _uuid_text(column: pa.ChunkedArray) -> pa.Array:
    """Return UUIDs as text of hexadecimal digits, as other formats have them."""
    storage = pa.chunked_array([c.storage.cast(pa.binary()) for c in column.chunks], pa.binary())
    digits = pl.Series(storage).bin.encode("hex")
    parts = [digits.str.slice(start, n) for start, n in ((8, 4), (12, 4), (16, 4), (20, 12))]
    text = digits.str.slice(0, 8)
    for part in parts:
        text = text + "-" + part
    return text.to_arrow()


def _is_tidy(column: pa.ChunkedArray) -> bool:
    """Return whether a column certainly needs no normalization.

    That is the case if no cell is empty and none begins or ends with a byte that can be part of
    white space. Most columns are tidy, and normalizing them would take a third of the reading time.
    """
    if pa.types.is_large_string(column.type):
        offset_type: np.dtype = np.dtype(np.int64)
    elif pa.types.is_string(column.type):
        offset_type = np.dtype(np.int32)
    else:
        result: bool = column.type.num_fields == 0 and pa.types.is_primitive(column.type)
        return result
    for chunk in column.chunks:
        _, offset_buffer, data_buffer = chunk.buffers()
        first = chunk.offset * offset_type.itemsize
        ends = np.frombuffer(offset_buffer, offset_type, len(chunk) + 1, first)
        present = np.diff(ends) > 0
        if len(chunk) - int(present.sum()) != chunk.null_count:
            return False
        if not present.any():
            continue
        data = np.frombuffer(data_buffer, np.uint8)[ends[0] : ends[-1]]
        if data.min() > ord(" ") and data.max() <= 0x7F:
            continue  # no byte is white space
        data = np.frombuffer(data_buffer, np.uint8)
        for edge in (data[ends[:-1][present]], data[ends[1:][present] - 1]):
            if edge.min() <= ord(" ") or edge.max() > 0x7F:
                return False
    return True


def drop_null_words(values: pl.Series, separator: str, null_values: Sequence[str]) -> pl.Series:
    """Remove the ids that stand for a missing value from bags that are stored as text.

    Bags stored as lists are normalized by `clean_cells` and returned unchanged.
    """
    if values.dtype != pl.String or not null_values:
        return values
    words = _spellings(null_values)
    in_brackets = values.str.contains(BRACKETS).any()
    lists = parse_lists(values, separator) if in_brackets else values.str.split(separator)
    kept = lists.list.eval(pl.element().filter(~pl.element().str.strip_chars().is_in(words)))
    return kept if in_brackets else kept.list.join(separator)


def _cleaned(values: pl.Series, words: list[str]) -> pl.Series | None:
    """Return the normalized column, or None if it does not change."""
    if isinstance(values.dtype, pl.Array) and not values.dtype.inner.is_numeric():
        values = values.arr.to_list()
    lists = isinstance(values.dtype, pl.List)
    inner = values.dtype.inner if isinstance(values.dtype, pl.List) else values.dtype
    if inner in _TEXT:
        try:
            values = values.cast(pl.List(pl.String) if lists else pl.String)
        except pl.exceptions.PolarsError:  # bytes that are not text: the parser reports them
            return None
        inner = pl.String()
    expression = _present(pl.element() if lists else pl.col("x"), inner, words)
    if expression is None:
        return None
    if lists:
        return values.list.eval(expression)
    return values.alias("x").to_frame().select(expression).to_series()


def _present(
    value: pl.Expr, dtype: pl.DataType | DataTypeClass, words: list[str]
) -> pl.Expr | None:
    """Return an expression with null for missing values; None if no value can be missing."""
    if dtype == pl.String:
        text = value.str.strip_chars()
        missing = text.is_in(["", *words]) if words else text.str.len_bytes() == 0
        return pl.when(~missing).then(text)
    if words and dtype == pl.Boolean:
        return pl.when(~value.cast(pl.String).is_in([w.lower() for w in words])).then(value)
    numbers = pl.Series(words).cast(pl.Float64, strict=False).drop_nulls().to_list()
    if numbers and dtype.is_numeric():
        return pl.when(~value.cast(pl.Float64).is_in(numbers)).then(value)
    return None


def _spellings(words: Sequence[str]) -> list[str]:
    """Return words together with both spellings of whole numbers, e.g. "-1" and "-1.0"."""
    out = dict.fromkeys(w.strip() for w in words)
    for word in list(out):
        number = word.removesuffix(".0")
        if number.removeprefix("-").isdigit():
            out |= {number: None, f"{number}.0": None}
    return list(out)
