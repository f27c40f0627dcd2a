"""The canonical directory as a source: Parquet or CSV files plus `log.json`."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ligr_jax.data.schema import SESSION, BadInput, load_schema
from ligr_jax.data.sources.files import (
    column_names,
    describe_file,
    estimate_rows,
    read_batches,
    read_items,
    table_files,
)
from ligr_jax.data.sources.source import Items, LogBatch, OnBadRow, Source


def canonical_source(directory: Path) -> Source:
    """Every Parquet and CSV file of `directory`, by name, is part of the log, but the item table.

    Raises `BadInput` where `log.json` or all log files are missing.
    """
    schema = load_schema(directory)
    items = directory / schema.items if schema.items else None
    if items and not items.is_file():
        raise BadInput(f"{directory}/log.json names the item table {schema.items}, which is absent")
    files = [p for p in table_files(directory) if p != items]
    if not files:
        raise BadInput(f"{directory} holds log.json but no .parquet or .csv file of impressions")

    def batches(batch_rows: int, on_bad_row: OnBadRow) -> Iterator[LogBatch]:
        for path in files:
            yield from read_batches(path, batch_rows, on_bad_row)

    described = [describe_file(p) for p in [directory / "log.json", *files]]
    return Source(
        name="canonical",
        schema=schema,
        batches=batches,
        rows=sum(estimate_rows(p) for p in files),
        description={
            "format": "canonical",
            "files": described + ([describe_file(items)] if items else []),
        },
        items=Items(column_names(items), partial(read_items, items)) if items else None,
        sessions=any(SESSION in column_names(p) for p in files),
    )
