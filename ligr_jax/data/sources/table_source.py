"""Any Parquet or text table of impressions as a log, given the meaning of its columns."""

from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from ligr_jax.data.schema import RANDOM, SESSION, TIME, BadInput
from ligr_jax.data.sources.file_formats import SUFFIXES
from ligr_jax.data.sources.files import (
    DataFile,
    column_names,
    column_type,
    count_all_rows,
    describe_files,
    file_parts,
    read_column,
    read_items,
)
from ligr_jax.data.sources.label_table import open_label_file
from ligr_jax.data.sources.listing import list_tables, not_read_remark, same_columns
from ligr_jax.data.sources.parts import chained, converted
from ligr_jax.data.sources.source import ItemSource, LogSource
from ligr_jax.data.sources.table_batches import canonical_batch, renamed_item_batch, used_columns
from ligr_jax.data.sources.table_checks import (
    canonical_names,
    refuse_unsupported_format,
    require_columns,
)
from ligr_jax.data.sources.table_columns import BY_NAME, ITEM, LOSS_WEIGHT, TableColumns
from ligr_jax.data.sources.table_schema import describe_column, table_schema
from ligr_jax.data.sources.text_header import read_header
from ligr_jax.data.sources.text_options import TextOptions
from ligr_jax.data.sources.times import TimeRule, TimeScan, infer_time_rule, requested_time_rule
from ligr_jax.data.threads import ordered_map
from ligr_jax.host_limits import host_cores

SCAN_ROWS = 1 << 17  # rows read at a time to infer the unit of the time column


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
    same_columns(files)
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

    # Reading: the time rule follows from all files, batches are then converted one by one.
    time = _time_rule(files, columns)
    used = used_columns(names, columns)
    labels = label_file.read(columns, time) if label_file else None

    convert = partial(canonical_batch, columns=columns, time=time, used=used, labels=labels)
    parts = tuple(converted(part, convert) for file in files for part in file_parts(file))
    batches = chained(parts)

    # Schema, and remarks for the summary.
    head = next(batches(1024, "skip"), None) if columns.vector else None
    schema = table_schema(columns, names, items, head)
    unused = [n for n in names if n not in used and n not in schema.columns]
    ruled = (r.column for r in columns.labels)
    read = {columns.canonical(n) for n in (columns.weight, *ruled, *columns.labels_on)}
    unused = [n for n in unused if n not in read]
    notes = (f"columns of the table that are not used: {', '.join(unused)}",) if unused else ()
    described: list[Path | DataFile] = [*files, *tables]
    return LogSource(
        name="table",
        schema=replace(schema, notes=notes),
        batches=batches,
        rows=count_all_rows(files),
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
        parts=parts,
    )


def _describe_options(columns: TableColumns) -> dict[str, Any]:
    """Return the options that determine the rows, for the manifest, without default values."""
    reading, time = asdict(columns.reading), asdict(columns.time)
    defaults = asdict(TextOptions())
    out = {
        "ignore": list(columns.ignore),
        "weight": columns.weight,
        "labels": [r.text for r in columns.labels],
        "labels_on": list(columns.labels_on),
        "reading": {k: v for k, v in reading.items() if v and v != defaults[k]},
        "time": {k: v for k, v in time.items() if v},
    }
    return {k: v for k, v in out.items() if v}


def _time_rule(files: list[DataFile], columns: TableColumns) -> TimeRule:
    """Return how the time column is read: by its type, as requested, or inferred from its values.

    Raises:
        BadInput: the request contradicts the type, or the rule cannot be inferred.
    """
    name = columns.names.get(TIME, TIME)
    requested = requested_time_rule(columns.time)
    types = [column_type(f, name) for f in files]
    is_temporal = [pa.types.is_temporal(t) for t in types]
    if all(is_temporal) and not columns.time.format:
        if columns.time.unit:
            raise BadInput(
                f"--time-unit {columns.time.unit}: column {name!r} of {files[0].path} has dates "
                f"or timestamps ({types[0]}) and not numbers; remove --time-unit"
            )
        return replace(requested, kind="typed")
    if any(is_temporal):
        kinds = sorted({str(t) for t in types})
        raise BadInput(
            f"{files[0].path}: column {name!r} has the types {kinds} in the files; write one type"
        )
    if columns.time.unit or columns.time.format:
        return requested
    scan = TimeScan()
    for of_file in ordered_map(partial(_scan_times, name=name), files, host_cores()):
        scan.merge(of_file)
    shown = repr(TIME) if name == TIME else f"{TIME!r} ({name!r} in the file)"
    where = f"{files[0].name}{' and others' if len(files) > 1 else ''}, column {shown}"
    return infer_time_rule(scan, columns.time, where)


def _scan_times(file: DataFile, name: str) -> TimeScan:
    return TimeScan.of(read_column(file, name, SCAN_ROWS))


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
    not_read: list[str], files: list[DataFile], time: TimeRule, columns: TableColumns
) -> Iterable[str]:
    """Yield remarks on the files for the summary."""
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
