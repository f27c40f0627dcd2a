"""JSON lines: one object per line, with or without compression.

A pass over the whole file finds the columns and their types, because types inferred from the first
rows would depend on how the file is split. Values of different types in one column become text. A
file with one array of objects, or with objects of several lines, is rewritten to lines while it is
read (`json_text`).
"""

import io
from collections.abc import Iterator
from functools import reduce
from pathlib import Path

import polars as pl
import pyarrow as pa

from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.json_text import NOT_FINITE, json_blocks
from ligr_jax.data.sources.source import OnBadRow
from ligr_jax.data.sources.text_options import TextOptions
from ligr_jax.data.threads import ordered_map
from ligr_jax.host_limits import host_cores

Types = dict[str, pl.DataType]
MOST_FIELDS = 256  # an object with more fields has data as keys, and is read as text


def json_schema(path: Path, reading: TextOptions) -> pa.Schema:
    """Return the columns of a file; an object or a list of objects is a struct or a list of them.

    Raises:
        BadInput: no line has an object, or the file cannot be read.
    """
    blocks = json_blocks(path, reading)
    types: Types = reduce(_union, ordered_map(_infer, blocks, host_cores()), {})
    if not types:
        raise BadInput(
            f"{path}: no line is a JSON object in braces with names in double quotes; write one "
            "object per line"
        )
    empty = pl.DataFrame(schema={name: _readable(dtype) for name, dtype in types.items()})
    return empty.to_arrow().schema


def json_rows(path: Path, reading: TextOptions) -> int:
    """Return the number of lines of a file."""
    return sum(block.count(b"\n") for block in json_blocks(path, reading))


def read_json_tables(
    path: Path, name: str, reading: TextOptions, on_bad_row: OnBadRow, schema: pa.Schema
) -> Iterator[tuple[pa.Table, int]]:
    """Yield the rows of a file.

    Args:
        path: the file.
        name: name of the file in messages.
        reading: how the file is read.
        on_bad_row: whether lines without a JSON object are an error or are skipped.
        schema: columns to return.

    Yields:
        A table, and the number of malformed lines that were skipped before its end.

    Raises:
        BadInput: a line is not a JSON object.
    """
    frame = pl.from_arrow(schema.empty_table())
    assert isinstance(frame, pl.DataFrame)
    first_row = 1
    for block in json_blocks(path, reading):
        rows: list[pl.DataFrame] = []
        malformed = 0
        for read in _parsed(block, frame.schema):
            if isinstance(read, pl.DataFrame):
                rows.append(read)
                continue
            if on_bad_row == "error":
                row = first_row + sum(r.height for r in rows)
                raise BadInput(
                    f"{name}, row {row}: not a JSON object ({read[:60]!r}); correct the line"
                    f"{reading.hint(', or skip such rows with --on-bad-row skip')}"
                )
            malformed += 1
        table = pl.concat(rows) if rows else frame
        yield table.to_arrow(), malformed
        first_row += table.height + malformed


def _infer(block: bytes) -> Types:
    """Return the types of the columns of a block, without lines that are not objects."""
    if not block.strip():
        return {}
    for text in _spellings(block):
        try:
            return dict(pl.scan_ndjson(io.BytesIO(text), infer_schema_length=None).collect_schema())
        except pl.exceptions.PolarsError:
            continue
    return reduce(_union, map(_infer, _halves(block)), {})


def _parsed(block: bytes, schema: pl.Schema) -> Iterator[pl.DataFrame | bytes]:
    """Yield the rows of a block; a line that is not an object is yielded as it is."""
    if not block.strip():
        return
    for text in _spellings(block):
        try:
            yield pl.read_ndjson(io.BytesIO(text), schema=schema)
            return
        except pl.exceptions.PolarsError:
            continue
    halves = _halves(block)
    if not halves:
        yield block
    for half in halves:
        yield from _parsed(half, schema)


def _spellings(block: bytes) -> Iterator[bytes]:
    """Yield a block, then the block with null for NaN and infinity, which Python writes."""
    yield block
    if b"NaN" in block or b"Infinity" in block:
        yield NOT_FINITE.sub(rb"\1null", block)


def _halves(block: bytes) -> list[bytes]:
    """Return two parts of a block of several lines; nothing if it is one line."""
    text = block.strip()
    middle = text.find(b"\n", len(text) // 2)
    middle = middle if middle >= 0 else text.rfind(b"\n")
    return [text[:middle], text[middle + 1 :]] if middle >= 0 else []


def _union(first: Types, second: Types) -> Types:
    """Return the columns of two parts of a file."""
    both = {name: _common(first[name], dtype) for name, dtype in second.items() if name in first}
    return {**first, **second, **both}


def _common(first: pl.DataType, second: pl.DataType) -> pl.DataType:
    """Return the type of a column with values of two types; text if they have none in common."""
    if first == second or second == pl.Null:
        return first
    if first == pl.Null:
        return second
    if isinstance(first, pl.List) and isinstance(second, pl.List):
        return pl.List(_common(_inner(first), _inner(second)))
    if isinstance(first, pl.Struct) and isinstance(second, pl.Struct):
        return pl.Struct(_union(_fields(first), _fields(second)))
    return pl.String()


def _readable(dtype: pl.DataType) -> pl.DataType:
    """Return the type as which a column is read; what Arrow does not have is read as text."""
    if isinstance(dtype, pl.List):
        return pl.List(_readable(_inner(dtype)))
    if isinstance(dtype, pl.Struct) and 0 < len(dtype.fields) <= MOST_FIELDS:
        return pl.Struct({name: _readable(field) for name, field in _fields(dtype).items()})
    return dtype if dtype in (pl.Int64, pl.Float64, pl.Boolean) else pl.String()


def _inner(dtype: pl.List) -> pl.DataType:
    inner = dtype.inner
    return inner() if isinstance(inner, type) else inner


def _fields(dtype: pl.Struct) -> Types:
    return dict(dtype.to_schema())  # type: ignore[arg-type]
