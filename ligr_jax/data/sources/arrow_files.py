"""Arrow IPC files (Feather version 2) and streams as Arrow tables, read by record batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc as ipc

from ligr_jax.data.schema import BadInput

MAGIC = b"ARROW1"
FEATHER_1 = b"FEA1"


def arrow_schema(path: Path) -> pa.Schema:
    """Return the columns of a file.

    Raises:
        BadInput: the file is not a complete Arrow file, or it is Feather version 1.
    """
    with _opened(path, None) as (schema, _):
        return schema


def arrow_rows(path: Path) -> int:
    """Return the number of rows of a file; only its first column is read."""
    with _opened(path, [0]) as (_, batches):
        return sum(batch.num_rows for batch in batches)


def read_arrow_tables(path: Path, columns: list[str] | None) -> Iterator[pa.Table]:
    """Yield the record batches of a file.

    Args:
        path: the file.
        columns: names of the columns to read; None for all.

    Raises:
        BadInput: the file is damaged.
    """
    fields = None
    if columns is not None:
        names = arrow_schema(path).names
        fields = [names.index(name) for name in columns]
    with _opened(path, fields) as (_, batches):
        for batch in batches:
            yield pa.Table.from_batches([batch])


@contextmanager
def _opened(
    path: Path, fields: list[int] | None
) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """Open a file that is mapped into memory; errors of the block are errors of the file."""
    try:
        with pa.memory_map(str(path)) as data:
            options = ipc.IpcReadOptions(included_fields=fields)
            start = data.read(8)
            if start.startswith(FEATHER_1):
                raise BadInput(
                    f"{path}: Feather version 1 is not read; write the file again with version 2"
                )
            if start.startswith(MAGIC):
                file = ipc.open_file(data, options=options)
                yield file.schema, (file.get_batch(k) for k in range(file.num_record_batches))
            else:
                data.seek(0)
                stream = ipc.open_stream(data, options=options)
                yield stream.schema, iter(stream)
    except (pa.ArrowException, OSError) as e:
        reason = str(e).splitlines()[0][:200] if str(e) else type(e).__name__
        raise BadInput(
            f"{path}: not a complete Arrow file ({reason}); write or copy it again"
        ) from e
