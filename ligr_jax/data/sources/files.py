"""Parquet and CSV files, read a bounded number of rows at a time, in file order.

CSV cells are handed on as text, whatever they look like: a guess from the first rows would make the
type of the later ones depend on how the file is cut. `validate` turns them into values.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.source import ROW_DIGEST, LogBatch, OnBadRow
from ligr_jax.digests import digest_file

SUFFIXES = (".parquet", ".csv")
CSV_BLOCK = 4 << 20  # bytes parsed at a time


def table_files(directory: Path) -> list[Path]:
    """Parquet and CSV files of `directory`, by name."""
    return sorted(p for p in directory.iterdir() if p.suffix in SUFFIXES and p.is_file())


def describe_file(path: Path) -> dict[str, Any]:
    """Name, size in bytes and xxh64 (hex) of the content."""
    return {"name": path.name, "bytes": path.stat().st_size, "xxh64": digest_file(path)}


def column_names(path: Path, delimiter: str = ",") -> list[str]:
    """Columns of a Parquet or CSV file; raises `BadInput` where it cannot be read."""
    if path.suffix == ".parquet":
        with _open_parquet(path) as file:
            return list(file.schema_arrow.names)
    try:
        with path.open(newline="", encoding="utf-8-sig") as f:
            names = next(csv.reader(f, delimiter=delimiter), [])
    except UnicodeDecodeError as e:
        raise BadInput(f"{path}: not UTF-8 text ({e}); convert it to UTF-8") from e
    if not names:
        raise BadInput(f"{path}: empty file; a CSV file starts with a line of column names")
    if len(set(names)) < len(names):
        twice = sorted({n for n in names if names.count(n) > 1})
        raise BadInput(f"{path}: columns {twice} appear twice in the header; rename them")
    return names


def estimate_rows(path: Path) -> int:
    """Rows of a file: exact for Parquet, from the length of the first megabyte's lines else."""
    if path.suffix == ".parquet":
        with _open_parquet(path) as file:
            return int(file.metadata.num_rows)
    with path.open("rb") as f:
        head = f.read(1 << 20)
    return head.count(b"\n") * path.stat().st_size // max(len(head), 1)


def read_batches(
    path: Path,
    batch_rows: int,
    on_bad_row: OnBadRow = "error",
    names: Sequence[str] = (),
    delimiter: str = ",",
) -> Iterator[LogBatch]:
    """Batches of at most `batch_rows` rows, with `ROW_DIGEST`.

    names: columns of a CSV file without a header line.
    Raises `BadInput` where the file is truncated, not what its name says, or a line of a CSV file
    has the wrong number of fields (left out and counted with on_bad_row="skip").
    """
    first_row = 1
    parquet = path.suffix == ".parquet"
    if parquet:
        tables = _parquet_tables(path, batch_rows)
    else:
        tables = _csv_tables(path, on_bad_row, list(names), delimiter)
    for table, malformed in tables:
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        # The codes of a dictionary differ from batch to batch, and so would their row digests.
        frame = frame.with_columns(
            pl.col(pl.Categorical, pl.Enum).cast(pl.String),
            pl.col(pl.List(pl.Categorical)).cast(pl.List(pl.String)),
        )
        for start in range(0, max(frame.height, 1), batch_rows):
            rows = frame.slice(start, batch_rows)
            if rows.height or malformed:
                rows = rows.with_columns(rows.hash_rows(seed=0).alias(ROW_DIGEST))
                yield LogBatch(path.name, first_row, rows, text=not parquet, malformed=malformed)
            first_row += rows.height + malformed
            malformed = 0


def read_items(path: Path, batch_rows: int = 1 << 17) -> Iterator[LogBatch]:
    """An item or user table as batches without `ROW_DIGEST`; an empty one is a batch of no rows."""
    there = False
    for batch in read_batches(path, batch_rows):
        there = True
        yield replace(batch, frame=batch.frame.drop(ROW_DIGEST))
    if not there:
        nothing = pl.DataFrame(schema=dict.fromkeys(column_names(path), pl.String))
        yield LogBatch(path.name, 1, nothing, text=path.suffix != ".parquet")


def read_whole(path: Path) -> LogBatch:
    """The same as one batch, of a file that is small."""
    batches = list(read_items(path))
    return replace(batches[0], frame=pl.concat(b.frame for b in batches))


def _open_parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as e:
        raise BadInput(
            f"{path}: not a complete Parquet file ({_first_line(e)}); was its writer cut off? "
            "write or copy it again"
        ) from e


def _parquet_tables(path: Path, batch_rows: int) -> Iterator[tuple[pa.Table, int]]:
    with _open_parquet(path) as file:
        try:
            for batch in file.iter_batches(batch_size=batch_rows):
                yield pa.Table.from_batches([batch]), 0
        except (pa.ArrowException, OSError) as e:
            raise BadInput(
                f"{path}: damaged Parquet file ({_first_line(e)}); write or copy it again"
            ) from e


def _csv_tables(
    path: Path, on_bad_row: OnBadRow, names: list[str], delimiter: str
) -> Iterator[tuple[pa.Table, int]]:
    header = 0 if names else 1
    columns = names or column_names(path, delimiter)
    malformed: list[pc.InvalidRow] = []

    def keep_going(row: pc.InvalidRow) -> str:
        malformed.append(row)
        return "skip"

    try:
        with pc.open_csv(
            path,
            read_options=pc.ReadOptions(
                use_threads=False, block_size=CSV_BLOCK, column_names=columns, skip_rows=header
            ),
            parse_options=pc.ParseOptions(delimiter=delimiter, invalid_row_handler=keep_going),
            convert_options=pc.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=True
            ),
        ) as reader:
            for batch in reader:
                if malformed and on_bad_row == "error":
                    break
                yield pa.Table.from_batches([batch]), len(malformed)
                malformed.clear()
    except (pa.ArrowInvalid, OSError) as e:
        if "Empty CSV" not in str(e):
            raise BadInput(f"{path}: not a readable CSV file ({_first_line(e)})") from e
    if malformed and on_bad_row == "error":
        row = malformed[0]
        raise BadInput(
            f"{path.name}, row {row.number - header}: {row.actual_columns} fields where the header "
            f"has {row.expected_columns} ({row.text[:60]!r}); mend the line, or leave such rows "
            "out with --on-bad-row skip"
        )
    if malformed:
        yield pa.table(dict.fromkeys(columns, pa.array([], pa.string()))), len(malformed)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
