"""How the time column of a table is read."""

from dataclasses import replace
from functools import partial

import pyarrow as pa

from ligr_jax.data.schema import TIME, BadInput
from ligr_jax.data.sources.explode import Explosion
from ligr_jax.data.sources.files import DataFile, column_type, read_column, read_columns
from ligr_jax.data.sources.source import LogBatch
from ligr_jax.data.sources.table_columns import TableColumns
from ligr_jax.data.sources.times import TimeRule, TimeScan, infer_time_rule, requested_time_rule
from ligr_jax.data.threads import ordered_map
from ligr_jax.host_limits import host_cores

SCAN_ROWS = 1 << 17  # rows read at a time to infer the unit of the time column


def table_time_rule(
    files: list[DataFile], columns: TableColumns, explosion: Explosion | None
) -> TimeRule | None:
    """Return how the time column is read: by its type, as requested, or inferred from its values.

    It is None if the log has no times.

    Args:
        files: files of the log.
        columns: the declared columns.
        explosion: how rows become rows of items.

    Raises:
        BadInput: the request contradicts the type, or the rule cannot be inferred.
    """
    if columns.time.absent:
        return None
    name = columns.names.get(TIME, TIME)
    requested = requested_time_rule(columns.time)
    types = [_element_type(file, name, explosion) for file in files]
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
    for of_file in ordered_map(
        partial(_scan_times, name=name, explosion=explosion), files, host_cores()
    ):
        scan.merge(of_file)
    shown = repr(TIME) if name == TIME else f"{TIME!r} ({name!r} in the file)"
    where = f"{files[0].name}{' and others' if len(files) > 1 else ''}, column {shown}"
    return infer_time_rule(scan, columns.time, where)


def _element_type(file: DataFile, name: str, explosion: Explosion | None) -> pa.DataType:
    """Return the type of the values of a column."""
    if explosion is None:
        return column_type(file, name)
    return explosion.element_type(name, column_type(file, explosion.source_column(name)))


def _scan_times(file: DataFile, name: str, explosion: Explosion | None) -> TimeScan:
    lists = explosion.of_column(name) if explosion else None
    if lists is None:
        return TimeScan.of(read_column(file, name, SCAN_ROWS))
    frames = read_columns(file, lists.lists, SCAN_ROWS)
    batches = (lists.apply(LogBatch(file.name, 1, frame)) for frame in frames)
    return TimeScan.of(batch.frame[name] for batch in batches)
