"""Structs and lists of structs as plain columns: `user.id`, `events.ts`.

A struct becomes a column for each field. A list of structs becomes a list for each field; these
lists have equal lengths in each row, and `--explode events` makes them rows.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def flat_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Return the plain columns of each column."""
    return {f.name: [name for name, _ in _flat_fields(f.name, f.type)] for f in schema}


def flat_schema(schema: pa.Schema) -> pa.Schema:
    """Return a schema without structs."""
    return pa.schema([plain for f in schema for plain in _flat_fields(f.name, f.type)])


def flat_table(table: pa.Table) -> pa.Table:
    """Return a table without structs."""
    if not any(_is_nested(field.type) for field in table.schema):
        return table
    columns: list[pa.ChunkedArray] = []
    for field, column in zip(table.schema, table.columns):
        types = [dtype for _, dtype in _flat_fields(field.name, field.type)]
        chunks = [_flat_arrays(chunk) for chunk in column.chunks]
        columns += [pa.chunked_array([c[k] for c in chunks], t) for k, t in enumerate(types)]
    return pa.Table.from_arrays(columns, schema=flat_schema(table.schema))


def _is_list(dtype: pa.DataType) -> bool:
    result: bool = pa.types.is_list(dtype) or pa.types.is_large_list(dtype)
    return result


def _is_nested(dtype: pa.DataType) -> bool:
    """Return whether a type is a struct or a list of structs, perhaps of several levels."""
    while _is_list(dtype):
        dtype = dtype.value_type
    result: bool = pa.types.is_struct(dtype)
    return result


def _flat_fields(name: str, dtype: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    if not _is_nested(dtype):
        yield name, dtype
    elif pa.types.is_struct(dtype):
        for field in dtype:
            yield from _flat_fields(f"{name}.{field.name}", field.type)
    else:
        for plain, inner in _flat_fields(name, dtype.value_type):
            large = pa.types.is_large_list(dtype)
            yield plain, pa.large_list(inner) if large else pa.list_(inner)


def _flat_arrays(values: pa.Array) -> list[pa.Array]:
    """Return the plain columns of a column, in the order of `_flat_fields`."""
    if not _is_nested(values.type):
        return [values]
    if pa.types.is_struct(values.type):
        fields = (pc.struct_field(values, [k]) for k in range(values.type.num_fields))
        return [plain for field in fields for plain in _flat_arrays(field)]
    list_array = pa.LargeListArray if pa.types.is_large_list(values.type) else pa.ListArray
    # The offsets are copied, because Arrow does not combine a mask with sliced offsets.
    offsets = pa.array(np.array(values.offsets))
    return [
        list_array.from_arrays(offsets, plain, mask=values.is_null())
        for plain in _flat_arrays(values.values)
    ]
