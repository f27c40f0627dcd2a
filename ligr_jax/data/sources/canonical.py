"""A canonical log: a directory with Parquet or CSV files and `log.json`."""

from functools import partial
from pathlib import Path

from ligr_jax.data.schema import RANDOM, RESERVED, SESSION, WEIGHT, BadInput, load_schema
from ligr_jax.data.sources.files import (
    DataFile,
    column_names,
    count_all_rows,
    describe_files,
    file_parts,
    read_items,
)
from ligr_jax.data.sources.listing import list_tables, not_read_remark
from ligr_jax.data.sources.parts import chained
from ligr_jax.data.sources.source import ItemSource, LogSource

DESCRIPTIONS = ("log.json", "world.json")  # files that describe the log


def canonical_source(directory: Path) -> LogSource:
    """Open a canonical log.

    All Parquet and text files except the item table belong to the log, in order of their names.

    Args:
        directory: directory with `log.json`.

    Raises:
        BadInput: `log.json`, the item table or all log files are absent.
    """
    # Files of the log, without the item table.
    schema = load_schema(directory)
    items = directory / schema.items if schema.items else None
    if items and not items.is_file():
        raise BadInput(
            f"{directory}/log.json names the item table {schema.items}, which does not exist; "
            "restore the file or correct log.json"
        )
    listing = list_tables(directory)
    files = [f for f in listing.files if f.path != items and f.name not in DESCRIPTIONS]
    if not files:
        raise BadInput(f"{directory} contains log.json but no .parquet or .csv file of impressions")

    parts = tuple(part for file in files for part in file_parts(file))
    # Roles of the columns: optional columns of the schema that are present, and unused columns.
    present = list(dict.fromkeys(n for f in files for n in column_names(f)))
    truth = [f"p_{a}" for a in schema.actions] if schema.truth else []
    roles = {*RESERVED, *schema.actions, *schema.columns, *truth}
    described: list[Path | DataFile] = [directory / "log.json", *files]
    described += [items] if items else []
    return LogSource(
        name="canonical",
        schema=schema,
        batches=chained(parts),
        rows=count_all_rows(files),
        description={
            "format": "canonical",
            "files": describe_files(described),
        },
        items=ItemSource(column_names(items), partial(read_items, items)) if items else None,
        sessions=SESSION in present,
        present=tuple(
            n for n in (SESSION, WEIGHT, RANDOM) if n in present and n not in schema.columns
        ),
        unused=tuple(n for n in present if n not in roles),
        remarks=not_read_remark([n for n in listing.not_read if n not in DESCRIPTIONS]),
        parts=parts,
    )
