"""Parquet files as Arrow tables."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ligr_jax.data.schema import BadInput


def parquet_schema(path: Path) -> pa.Schema:
    """Return the columns of a file.

    Raises:
        BadInput: the file is not a complete Parquet file.
    """
    with _open(path) as file:
        return file.schema_arrow


def parquet_row_groups(path: Path) -> list[int]:
    """Return the number of rows of each row group."""
    with _open(path) as file:
        metadata = file.metadata
        return [metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)]


def read_parquet_tables(
    path: Path, batch_rows: int, columns: list[str] | None, row_groups: list[int] | None
) -> Iterator[pa.Table]:
    """Yield the rows of a file.

    Args:
        path: the file.
        batch_rows: largest number of rows of a table.
        columns: names of the columns to read; None for all.
        row_groups: numbers of the row groups to read; None for all.

    Raises:
        BadInput: the file is damaged.
    """
    with _open(path) as file:
        try:
            for batch in file.iter_batches(batch_rows, row_groups, columns=columns):
                yield pa.Table.from_batches([batch])
        except (pa.ArrowException, OSError) as e:
            raise BadInput(
                f"{path}: damaged Parquet file ({_first_line(e)}); write or copy it again"
            ) from e


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as e:
        raise BadInput(
            f"{path}: not a complete Parquet file ({_first_line(e)}), perhaps because its writer "
            "was interrupted; write or copy it again"
        ) from e


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
