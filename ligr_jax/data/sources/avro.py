"""Avro files as Arrow tables (fastavro, `ligr-jax[avro]`)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from ligr_jax.data.schema import BadInput

_TYPES: Mapping[str, pa.DataType] = {
    "null": pa.null(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    "enum": pa.string(),
    "bytes": pa.binary(),
}
_LOGICAL: Mapping[str, pa.DataType] = {
    "date": pa.date32(),
    "timestamp-millis": pa.timestamp("ms", "UTC"),
    "timestamp-micros": pa.timestamp("us", "UTC"),
    "local-timestamp-millis": pa.timestamp("ms"),
    "local-timestamp-micros": pa.timestamp("us"),
    "uuid": pa.string(),
}


def avro_schema(path: Path) -> pa.Schema:
    """Return the columns of a file.

    Raises:
        BadInput: the file is not a complete Avro file, or a column has a type that is not read.
    """
    with _opened(path) as blocks:
        fields = blocks.writer_schema.get("fields", [])
    return pa.schema([(f["name"], _arrow_type(path, f["name"], f["type"])) for f in fields])


def avro_rows(path: Path) -> int:
    """Return the number of rows of a file."""
    with _opened(path) as blocks:
        return sum(block.num_records for block in blocks)


def read_avro_tables(
    path: Path, batch_rows: int, only: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """Yield the rows of a file.

    Args:
        path: the file.
        batch_rows: least number of rows of a table, except for the last one.
        only: columns to return; default: all.

    Raises:
        BadInput: the file is damaged.
    """
    schema = avro_schema(path)
    if only is not None:
        schema = pa.schema([schema.field(name) for name in only])
    table = partial(pa.Table.from_pylist, schema=schema)
    records: list[dict[str, Any]] = []
    with _opened(path) as blocks:
        for block in blocks:
            records += block
            if len(records) >= batch_rows:
                yield table(records)
                records = []
    if records:
        yield table(records)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file for reading by blocks; errors of the block are errors of the file."""
    try:
        import fastavro
    except ImportError as e:
        raise BadInput(f"{path}: Avro files need fastavro: pip install 'ligr-jax[avro]'") from e
    with path.open("rb") as file:
        try:
            yield fastavro.block_reader(file)
        except (ValueError, EOFError, IndexError, KeyError, pa.ArrowException) as e:
            reason = str(e).splitlines()[0][:200] if str(e) else type(e).__name__
            raise BadInput(
                f"{path}: not a complete Avro file ({reason}); write or copy it again"
            ) from e


def _arrow_type(path: Path, name: str, declared: Any) -> pa.DataType:
    """Return the Arrow type of an Avro type; a union of null and a type is that type."""
    if isinstance(declared, list):
        kinds = [kind for kind in declared if kind != "null"]
        if len(kinds) <= 1:
            return _arrow_type(path, name, kinds[0] if kinds else "null")
    kind = declared.get("type") if isinstance(declared, dict) else declared
    logical = declared.get("logicalType") if isinstance(declared, dict) else None
    if logical == "decimal":
        return pa.decimal128(declared["precision"], declared.get("scale", 0))
    if isinstance(logical, str) and logical in _LOGICAL:
        return _LOGICAL[logical]
    if kind == "array" and isinstance(declared, dict):
        return pa.list_(_arrow_type(path, name, declared["items"]))
    if isinstance(kind, dict):
        return _arrow_type(path, name, kind)
    if not isinstance(kind, str) or kind not in _TYPES:
        raise BadInput(
            f"{path}: column {name!r} has the Avro type {declared}, which is not read; write a "
            "number, text, a time or a list of them"
        )
    return _TYPES[kind]
