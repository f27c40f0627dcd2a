"""The file formats: how a file is recognized, and the functions that read it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from ligr_jax.data.sources.arrow_files import MAGIC, arrow_rows, arrow_schema, read_arrow_tables
from ligr_jax.data.sources.avro import avro_rows, avro_schema, read_avro_tables
from ligr_jax.data.sources.compression import plain_name
from ligr_jax.data.sources.delimited import count_rows, read_text_tables, text_schema
from ligr_jax.data.sources.json_lines import json_rows, json_schema, read_json_tables
from ligr_jax.data.sources.parquet import parquet_row_groups, parquet_schema, read_parquet_tables
from ligr_jax.data.sources.source import OnBadRow
from ligr_jax.data.sources.text_options import TextOptions

PARQUET = (".parquet", ".pq", ".parq")
# Suffixes of files with rows. `.json` and LOOSE files of a directory are read only if it has no
# others, because they often are descriptions.
SUFFIXES = {
    **dict.fromkeys(PARQUET, "parquet"),
    ".avro": "avro",
    **dict.fromkeys((".arrow", ".feather", ".ipc"), "arrow"),
    **dict.fromkeys((".jsonl", ".ndjson"), "json"),
    **dict.fromkeys((".csv", ".tsv", ".tab"), "text"),
}
JSON = ".json"
LOOSE = (".txt", ".dat", ".data")
STREAMED = ("json", "text")  # formats that are read through a decompressing stream
_STARTS = {b"PAR1": "parquet", b"Obj\x01": "avro", MAGIC: "arrow"}


class StoredFile(Protocol):
    """What the functions of a format know about a file; see `files.DataFile`."""

    @property
    def path(self) -> Path: ...
    @property
    def name(self) -> str: ...
    @property
    def reading(self) -> TextOptions: ...
    @property
    def stored_schema(self) -> pa.Schema: ...


@dataclass(frozen=True)
class FileFormat:
    """Functions that read files of a format.

    Attributes:
        schema: returns the columns of a file.
        rows: returns the number of rows of a file.
        tables: yields tables of up to about the given number of rows, with the number of malformed
            rows before the end of each. The last argument has the names of the columns to read;
            None for all.
    """

    schema: Callable[[Path, TextOptions], pa.Schema]
    rows: Callable[[Path, TextOptions], int]
    tables: Callable[[StoredFile, int, OnBadRow, list[str] | None], Iterator[tuple[pa.Table, int]]]


def suffix_of(path: Path) -> str:
    """Return the suffix of a file in lower case, without that of its compression."""
    return Path(plain_name(path)).suffix.lower()


def format_name(path: Path) -> str:
    """Return the name of the format of a file; a file of no other format is delimited text."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    with path.open("rb") as file:
        start = file.read(len(MAGIC))
    for magic, name in _STARTS.items():
        if start.startswith(magic):
            return name
    inner = suffix_of(path)
    return "json" if inner == JSON or SUFFIXES.get(inner) == "json" else "text"


def _parquet_tables(
    file: StoredFile, batch_rows: int, on_bad_row: OnBadRow, columns: list[str] | None
) -> Iterator[tuple[pa.Table, int]]:
    return ((t, 0) for t in read_parquet_tables(file.path, batch_rows, columns, None))


def _avro_tables(
    file: StoredFile, batch_rows: int, on_bad_row: OnBadRow, columns: list[str] | None
) -> Iterator[tuple[pa.Table, int]]:
    return ((t, 0) for t in read_avro_tables(file.path, batch_rows, columns))


def _arrow_tables(
    file: StoredFile, batch_rows: int, on_bad_row: OnBadRow, columns: list[str] | None
) -> Iterator[tuple[pa.Table, int]]:
    return ((t, 0) for t in read_arrow_tables(file.path, columns))


def _json_tables(
    file: StoredFile, batch_rows: int, on_bad_row: OnBadRow, columns: list[str] | None
) -> Iterator[tuple[pa.Table, int]]:
    schema = file.stored_schema
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns])
    return read_json_tables(file.path, file.name, file.reading, on_bad_row, schema)


def _text_tables(
    file: StoredFile, batch_rows: int, on_bad_row: OnBadRow, columns: list[str] | None
) -> Iterator[tuple[pa.Table, int]]:
    return read_text_tables(file.path, file.name, file.reading, on_bad_row, columns)


FILE_FORMATS: dict[str, FileFormat] = {
    "parquet": FileFormat(
        schema=lambda path, _: parquet_schema(path),
        rows=lambda path, _: sum(parquet_row_groups(path)),
        tables=_parquet_tables,
    ),
    "avro": FileFormat(
        schema=lambda path, _: avro_schema(path),
        rows=lambda path, _: avro_rows(path),
        tables=_avro_tables,
    ),
    "arrow": FileFormat(
        schema=lambda path, _: arrow_schema(path),
        rows=lambda path, _: arrow_rows(path),
        tables=_arrow_tables,
    ),
    "json": FileFormat(schema=json_schema, rows=json_rows, tables=_json_tables),
    "text": FileFormat(schema=text_schema, rows=count_rows, tables=_text_tables),
}
