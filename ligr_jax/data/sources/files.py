"""Files of rows in any supported format, read in batches and in file order."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import repeat
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.cells import clean_cells
from ligr_jax.data.sources.file_formats import FILE_FORMATS, FileFormat, format_name
from ligr_jax.data.sources.nested import flat_names, flat_schema, flat_table
from ligr_jax.data.sources.parquet import parquet_row_groups, read_parquet_tables
from ligr_jax.data.sources.source import ROW_DIGEST, DeferredBatch, LogBatch, OnBadRow, Part
from ligr_jax.data.sources.text_options import TextOptions
from ligr_jax.data.threads import ordered_map
from ligr_jax.digests import digest_file
from ligr_jax.host_limits import host_cores

PART_ROWS = 1 << 20  # least number of rows of a part of a file, except for the last part


@dataclass(frozen=True)
class DataFile:
    """One file of rows.

    Attributes:
        path: the file.
        name: name in messages and in the manifest, relative to the directory of the log.
        partition: columns with a value in the path (`dt=2023-11-16/part-0.parquet`); None for null.
        reading: how a text file is read.
        flat: whether the fields of structs are columns (see `nested`).
        order: all columns in the order of the log, where the file has another order or, as JSON,
            lacks some; () for the order of the file.
    """

    path: Path
    name: str
    partition: Mapping[str, str | None] = field(default_factory=dict)
    reading: TextOptions = field(default_factory=TextOptions)
    flat: bool = False
    order: tuple[str, ...] = ()

    @classmethod
    def of(cls, file: "Path | DataFile") -> "DataFile":
        """Return a file, or the file of a path."""
        return file if isinstance(file, DataFile) else cls(file, file.name)

    @cached_property
    def format_name(self) -> str:
        """Name of the format, by the suffix or the first bytes."""
        return format_name(self.path)

    @property
    def format(self) -> FileFormat:
        """Functions that read the file."""
        return FILE_FORMATS[self.format_name]

    @property
    def parquet(self) -> bool:
        """Whether the file is Parquet."""
        return self.format_name == "parquet"

    @property
    def text(self) -> bool:
        """Whether the file is delimited text."""
        return self.format_name == "text"

    @cached_property
    def stored_schema(self) -> pa.Schema:
        """Columns as they are stored, without columns of the path.

        Raises:
            BadInput: the file cannot be read.
        """
        return self.format.schema(self.path, self.reading)

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns as they are read, without columns of the path.

        Raises:
            BadInput: the file cannot be read, or a column occurs twice.
        """
        schema = flat_schema(self.stored_schema) if self.flat else self.stored_schema
        names = schema.names
        if len(set(names)) < len(names):
            repeated = sorted({n for n in names if names.count(n) > 1})
            raise BadInput(f"{self.path}: columns {repeated} appear twice; rename them")
        return schema


def describe_file(file: Path | DataFile) -> dict[str, Any]:
    """Return name, size in bytes and xxh64 (hex) of a file, for the manifest."""
    file = DataFile.of(file)
    size = file.path.stat().st_size
    return {"name": file.name, "bytes": size, "xxh64": digest_file(file.path)}


def describe_files(files: Sequence[Path | DataFile]) -> list[dict[str, Any]]:
    """Return the descriptions of files, which are read in threads."""
    return list(ordered_map(describe_file, files, host_cores()))


def count_all_rows(files: Sequence[Path | DataFile]) -> int:
    """Return the number of rows of all files, which are read in threads."""
    return sum(ordered_map(rows_in, files, host_cores()))


def column_names(file: Path | DataFile) -> list[str]:
    """Return the columns of a file, followed by columns of its path.

    Raises:
        BadInput: the file cannot be read, or a column occurs twice.
    """
    file = DataFile.of(file)
    if file.order:
        return list(file.order)
    names = list(file.schema.names)
    return [*names, *(k for k in file.partition if k not in names)]


def column_type(file: Path | DataFile, name: str) -> pa.DataType:
    """Return the Arrow type of a column; columns of text files and paths are strings."""
    schema = DataFile.of(file).schema
    return schema.field(name).type if name in schema.names else pa.string()


def rows_in(file: Path | DataFile) -> int:
    """Return the number of rows of a file; exact except for text with unbalanced quotes."""
    file = DataFile.of(file)
    return file.format.rows(file.path, file.reading)


def read_batches(
    file: Path | DataFile, batch_rows: int, on_bad_row: OnBadRow = "error"
) -> Iterator[LogBatch]:
    """Yield the rows of a file in batches, with the column `ROW_DIGEST`.

    Args:
        file: the file.
        batch_rows: largest number of rows of a batch.
        on_bad_row: whether lines with a wrong number of fields are an error or are skipped.

    Raises:
        BadInput: the file is truncated or damaged, or a line has a wrong number of fields.
    """
    for part in file_parts(file):
        for deferred in part(batch_rows, on_bad_row):
            yield deferred()


def file_parts(file: Path | DataFile) -> list[Part]:
    """Return the parts of a file: groups of row groups of a Parquet file, else the whole file."""
    file = DataFile.of(file)
    if not file.parquet:
        return [partial(_deferred, file, None, 1)]
    rows = parquet_row_groups(file.path)
    parts: list[Part] = []
    first_row, groups = 1, list[int]()
    for k, _ in enumerate(rows):
        groups.append(k)
        size = sum(rows[g] for g in groups)
        if size >= PART_ROWS or k == len(rows) - 1:
            parts.append(partial(_deferred, file, groups, first_row))
            first_row, groups = first_row + size, []
    return parts


def _deferred(
    file: DataFile,
    row_groups: list[int] | None,
    first_row: int,
    batch_rows: int,
    on_bad_row: OnBadRow,
) -> Iterator[DeferredBatch]:
    """Yield the batches of a part of a file, which begins at `first_row` of the file."""
    tables = _tables(file, batch_rows, on_bad_row, row_groups=row_groups)
    for table, malformed in _combined(tables, batch_rows):
        for start in range(0, max(table.num_rows, 1), batch_rows):
            rows = table.slice(start, batch_rows)
            if rows.num_rows or malformed:
                yield partial(_batch, rows, file, first_row, malformed)
            first_row += rows.num_rows + malformed
            malformed = 0


def _batch(table: pa.Table, file: DataFile, first_row: int, malformed: int) -> LogBatch:
    rows = _in_order(_frame(table, file), file.order)
    rows = rows.with_columns(row_digests(rows))
    return LogBatch(file.name, first_row, rows, text=True, malformed=malformed)


def read_column(file: Path | DataFile, name: str, batch_rows: int) -> Iterator[pl.Series]:
    """Yield the values of one column in file order, without malformed rows."""
    file = DataFile.of(file)
    if name not in file.schema.names:
        yield pl.Series(name, [file.partition.get(name)], dtype=pl.String)
        return
    for table, _ in _tables(file, batch_rows, "skip", [name]):
        yield _frame(table, file)[name]


def read_columns(
    file: Path | DataFile, names: Sequence[str], batch_rows: int
) -> Iterator[pl.DataFrame]:
    """Yield some columns of a file in file order, without malformed rows."""
    file = DataFile.of(file)
    present = [name for name in names if name in file.schema.names]
    for table, _ in _tables(file, batch_rows, "skip", present) if present else ():
        yield _in_order(_frame(table, file), file.order and names)


def read_items(file: Path | DataFile, batch_rows: int = 1 << 17) -> Iterator[LogBatch]:
    """Yield the rows of an item table in batches, without `ROW_DIGEST`.

    A table without rows gives one empty batch.
    """
    file, empty = DataFile.of(file), True
    for batch in read_batches(file, batch_rows):
        empty = False
        yield replace(batch, frame=batch.frame.drop(ROW_DIGEST))
    if empty:
        no_rows = pl.DataFrame(schema=dict.fromkeys(column_names(file), pl.String))
        yield LogBatch(file.name, 1, no_rows, text=True)


def read_whole(file: Path | DataFile) -> LogBatch:
    """Return all rows of a small table as one batch."""
    batches = list(read_items(file))
    return replace(batches[0], frame=pl.concat(b.frame for b in batches))


def row_digests(frame: pl.DataFrame) -> pl.Series:
    """Return digests of rows, uint64 [N]; equal rows have equal digests."""
    return frame.hash_rows(seed=0).alias(ROW_DIGEST)


def _frame(table: pa.Table, file: DataFile) -> pl.DataFrame:
    """Return rows with normalized cells and the columns of the path."""
    frame = clean_cells(table, file.reading.null_values)
    added = [
        pl.Series(name, [value], dtype=pl.String).new_from_index(0, frame.height)
        for name, value in file.partition.items()
        if name not in frame.columns
    ]
    return frame.with_columns(added) if added else frame


def _in_order(frame: pl.DataFrame, order: Sequence[str]) -> pl.DataFrame:
    """Return columns in an order; absent columns are null."""
    if not order:
        return frame
    null = pl.Series([None], dtype=pl.String).new_from_index(0, frame.height)
    return pl.DataFrame([frame[n] if n in frame.columns else null.alias(n) for n in order])


def _tables(
    file: DataFile,
    batch_rows: int,
    on_bad_row: OnBadRow,
    only: Sequence[str] | None = None,
    row_groups: list[int] | None = None,
) -> Iterator[tuple[pa.Table, int]]:
    """Yield tables, and the number of malformed rows before the end of each."""
    stored = None if only is None else list(only)
    if only is not None and file.flat:
        stored = [n for n, flat in flat_names(file.stored_schema).items() if set(flat) & set(only)]
    if row_groups is None:
        tables = file.format.tables(file, batch_rows, on_bad_row, stored)
    else:
        of_groups = read_parquet_tables(file.path, batch_rows, stored, row_groups)
        tables = zip(of_groups, repeat(0))
    for table, malformed in tables:
        plain = flat_table(table) if file.flat else table
        yield (plain if only is None else plain.select(list(only))), malformed


def _combined(
    tables: Iterator[tuple[pa.Table, int]], batch_rows: int
) -> Iterator[tuple[pa.Table, int]]:
    """Combine consecutive tables to up to `batch_rows` rows, because each batch has a fixed cost.

    The rows before an error are yielded before it is raised.
    """
    pending: list[pa.Table] = []
    error: BadInput | None = None
    while True:
        try:
            table, malformed = next(tables, (None, 0))
        except BadInput as e:
            table, malformed, error = None, 0, e
        rows = sum(t.num_rows for t in pending)
        if pending and (table is None or malformed or rows + table.num_rows > batch_rows):
            yield pa.concat_tables(pending), 0
            pending = []
        if error:
            raise error
        if table is None:
            return
        if malformed:
            yield table, malformed
        else:
            pending.append(table)
