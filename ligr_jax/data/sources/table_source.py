"""Any Parquet or text table of impressions as a log, given the meaning of its columns."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from ligr_jax.data.schema import RANDOM, SESSION, BadInput
from ligr_jax.data.sources.explode import Explosion, explosion_of, mean_elements
from ligr_jax.data.sources.file_formats import SUFFIXES
from ligr_jax.data.sources.files import (
    DataFile,
    column_names,
    count_all_rows,
    describe_files,
    file_parts,
    read_items,
)
from ligr_jax.data.sources.label_table import open_label_file
from ligr_jax.data.sources.listing import list_tables, not_read_remark, with_common_columns
from ligr_jax.data.sources.parts import chained, converted, with_fewer_rows
from ligr_jax.data.sources.source import ItemSource, LogSource, Part
from ligr_jax.data.sources.table_batches import canonical_batch, renamed_item_batch, used_columns
from ligr_jax.data.sources.table_checks import (
    canonical_names,
    refuse_unsupported_format,
    require_columns,
)
from ligr_jax.data.sources.table_columns import BY_NAME, ITEM, LOSS_WEIGHT, TableColumns
from ligr_jax.data.sources.table_schema import describe_column, table_schema
from ligr_jax.data.sources.table_times import table_time_rule
from ligr_jax.data.sources.text_header import read_header
from ligr_jax.data.sources.text_options import TextOptions
from ligr_jax.data.sources.times import TimeRule

HEAD_ROWS = 1024  # rows from which the mean number of elements of a list is measured


def table_source(path: Path, columns: TableColumns) -> LogSource:
    """Open a table as a log.

    `item_id` is always a categorical feature. If the table has them, `actor_id` is a categorical
    feature, `session_id` defines the sessions and `is_random` marks random impressions.

    Args:
        path: a file, or a directory of files with the same columns.
        columns: the meaning of the columns.

    Raises:
        BadInput: columns are absent or contradict each other, or no action is declared.
    """
    # Files, and the canonical names of their columns.
    listing = list_tables(path, columns.reading)
    tables = [path for path in (columns.items, columns.label_table) if path is not None]
    others = [path.resolve() for path in tables]
    files = [f for f in listing.files if f.path.resolve() not in others]
    if not files:
        raise BadInput(f"{path} contains no file of impressions ({', '.join(SUFFIXES)})")
    for file in files:
        refuse_unsupported_format(file)
    files = with_common_columns(files)
    items = _open_items(columns.items, columns) if columns.items else None
    item_columns = items.columns if items else ()
    label_file = open_label_file(columns, columns.label_table) if columns.label_table else None
    elsewhere = [*item_columns, *(label_file.names if label_file else ())]
    names = canonical_names(files[0], columns, elsewhere)
    names = [*names, *(c for c, ours in columns.copies.items() if ours in names)]
    if label_file:
        label_file.require_keys(files[0].path, names)
        names += label_file.actions
    require_columns(files[0], names, columns, item_columns)

    used = used_columns(names, columns)
    ruled = (name for r in columns.labels for name in r.columns)
    read = {columns.canonical(n) for n in (columns.weight, *ruled, *columns.labels_on)}

    # Reading: the time rule follows from all files, batches are then converted one by one.
    explosion = _explosion(files[0], columns, {*used, *read, *columns.copies.values()})
    time = table_time_rule(files, columns, explosion)
    labels = label_file.read(columns, time) if label_file else None
    convert = partial(canonical_batch, columns=columns, time=time, used=used, labels=labels)
    parts = [part for file in files for part in file_parts(file)]
    elements = 1.0
    if explosion:
        elements = _mean_elements(explosion, parts)
        parts = [with_fewer_rows(part, math.ceil(elements)) for part in parts]
        parts = [converted(part, explosion.apply) for part in parts]
    parts = [converted(part, convert) for part in parts]
    batches = chained(parts)

    # Schema, and remarks for the summary.
    head = next(batches(HEAD_ROWS, "skip"), None) if columns.vector else None
    schema = table_schema(columns, names, items, head)
    unused = [n for n in names if n not in used and n not in schema.columns and n not in read]
    exploded_columns = explosion.lists if explosion else ()
    unused = [n for n in unused if n not in exploded_columns]
    notes = (f"columns of the table that are not used: {', '.join(unused)}",) if unused else ()
    described: list[Path | DataFile] = [*files, *tables]
    return LogSource(
        name="table",
        schema=replace(schema, notes=notes, time_is_order=time is None),
        batches=batches,
        rows=round(count_all_rows(files) * elements),
        description={
            "format": "table",
            "files": describe_files(described),
            "names": dict(columns.names),
            "actions": list(schema.actions),
            "columns": {k: describe_column(c) for k, c in schema.columns.items()},
            **_describe_options(columns),
        },
        items=items,
        names=columns.original_names(),
        weight=LOSS_WEIGHT if columns.weight else "",
        sessions=SESSION in used,
        unused=tuple(unused),
        by_name=tuple(n for n in BY_NAME if n in used and n not in columns.names),
        remarks=tuple(_remarks(listing.not_read, files, time, columns)),
        present=(
            *(n for n in (SESSION, RANDOM) if n in used and n not in schema.columns),
            *([LOSS_WEIGHT] if columns.weight else []),
        ),
        rules={r.action: r for r in columns.labels},
        time_rule=time,
        label_table=(f"--labels {columns.label_table}", len(labels)) if labels else None,
        parts=tuple(parts),
    )


def _describe_options(columns: TableColumns) -> dict[str, Any]:
    """Return the options that determine the rows, for the manifest, without default values."""
    reading, time = asdict(columns.reading), asdict(columns.time)
    defaults = asdict(TextOptions())
    out = {
        "ignore": list(columns.ignore),
        "late": list(columns.late),
        "weight": columns.weight,
        "labels": [r.text for r in columns.labels],
        "labels_on": list(columns.labels_on),
        "explode": [o.text for o in columns.explode],
        "separator": columns.separator if columns.explode else "",
        "reading": {k: v for k, v in reading.items() if v and v != defaults[k]},
        "time": {k: v for k, v in time.items() if v},
    }
    return {k: v for k, v in out.items() if v}


def _explosion(file: DataFile, columns: TableColumns, used: set[str]) -> Explosion | None:
    """Return how rows become rows of items, or None; `used` has canonical names."""
    if not columns.explode:
        return None
    present = column_names(file)
    kept = [name for name in present if columns.canonical(name) in used]
    return explosion_of(columns.explode, present, columns.separator, kept)


def _mean_elements(explosion: Explosion, parts: Sequence[Part]) -> float:
    """Return the mean number of elements in the lists of the first rows."""
    head = next(chained(parts)(HEAD_ROWS, "skip"), None)
    return max(mean_elements(explosion, head), 1.0) if head else 1.0


def _open_items(path: Path, columns: TableColumns) -> ItemSource:
    """Open the item table."""
    if not path.is_file():
        raise BadInput(f"--items {path}: no such file")
    file = DataFile(path, path.name, reading=columns.reading.of_side_table(), flat=True)
    refuse_unsupported_format(file)
    names = canonical_names(file, columns, None)
    if ITEM not in names:
        raise BadInput(
            f"{path}: an item table needs a column {ITEM!r} (or --map {ITEM}=NAME); its columns "
            f"are {column_names(file)}"
        )
    return ItemSource(
        names, lambda: (renamed_item_batch(batch, columns) for batch in read_items(file))
    )


def _remarks(
    not_read: list[str], files: list[DataFile], time: TimeRule | None, columns: TableColumns
) -> Iterable[str]:
    """Yield remarks on the files for the summary."""
    if time:
        yield f"times: {time.describe()}"
    if columns.ignore:
        yield f"ignored: {', '.join(columns.ignore)}"
    for name in [n for n in columns.ignore if n not in column_names(files[0])]:
        yield f"--ignore {name}: there is no such column"
    if files[0].text:
        delimiter = read_header(files[0].path, files[0].reading)[1]
        if delimiter != ",":
            yield f"delimiter: {delimiter!r}"
    keys = list(files[0].partition)
    if keys:
        yield f"columns from the paths of the files: {', '.join(keys)}"
    yield from not_read_remark(not_read)
