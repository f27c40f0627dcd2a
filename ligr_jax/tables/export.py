"""Export of tables for serving: float32, 8 or 4 bits, shard by shard in bounded memory.

Each process writes the parts of a table that its devices store, without replicas. A chunk is as
wide as a device's columns, so that no two devices write to one chunk. At most 65,536 rows of a
device's columns are on the host at once. The values written do not depend on the placement of the
table: for rows sharded over devices, only the range is computed on the devices.

Several processes that export to an object store have no common files, and the rows of a shard may
lie on several hosts. There process 0 writes all tables, and the devices send it 65,536 rows at a
time.
"""

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from ligr_jax.lock import exclusive
from ligr_jax.ops.quantization import dequantize, quantize_between, require_finite
from ligr_jax.store.mirror import uri_of
from ligr_jax.store.publish import published_tree
from ligr_jax.tables.pieces import (
    Piece,
    Source,
    blocks_of,
    columns_of,
    gathered_piece,
    pieces_of,
)
from ligr_jax.tables.zarr import (
    INDEX,
    ExportError,
    arrays_of,
    bytes_of,
    metadata_digests,
    open_array,
    require_free,
    start,
    table_directory,
    write_group,
    write_index,
)

_IN_FLIGHT = 2  # blocks that are written while the next one is encoded


def export(
    sources: Iterable[Source],
    directory: Path,
    bits: int = 32,
    run: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write tables to `directory`. Every process of a run must call it with the same arguments.

    Args:
        sources: tables.
        directory: output directory.
        bits: 32, 8 or 4.
        run: recorded in the index, e.g. the digest of the run's configuration.
        overwrite: whether a finished export may be replaced.

    Returns:
        The index, complete in process 0: `run`; `tables` by name: rows, width, bits, bytes (of all
        files), rmse (of the values read back); `files`: xxh64 of the files that describe the
        arrays.

    Raises:
        ExportError: `directory` has a finished export or other files; the shape, name or sharding
            of a table is not supported; or a row is not finite.
        Busy: another process is exporting to `directory`.
    """
    if bits not in (32, 8, 4):
        raise ExportError(f"bits={bits}: tables are exported with 32, 8 or 4 bits; give one")
    with _only_writer(directory, overwrite):
        return write_tables(sources, directory, bits, run)


@contextlib.contextmanager
def _only_writer(directory: Path, overwrite: bool) -> Iterator[None]:
    """Lock the directory, in process 0, and start the export."""
    if jax.process_index() != 0:
        yield
        return
    require_free(directory, overwrite)  # before the lock makes the directory
    with exclusive(directory, "is exporting tables there"):
        start(directory, overwrite)
        with published_tree(directory, INDEX):
            yield


def write_tables(
    sources: Iterable[Source], directory: Path, bits: int, run: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write the tables and the index into a directory that process 0 has locked and started.

    Arguments and result are those of `export`.
    """
    _wait_for_all("started")
    tables: dict[str, dict[str, Any]] = {}
    for source in sources:
        _check(source, bits)
        if source.name in tables:
            raise ExportError(f"two tables have the name {source.name!r}; rename one of them")
        error = _write_table(source, directory, bits)
        path = table_directory(directory, source.name)
        shape = {"rows": source.rows, "width": source.width, "bits": bits}
        if jax.process_index() == 0:
            write_group(path, shape)
        _wait_for_all(source.name)
        rmse = (error / (source.rows * source.width)) ** 0.5
        tables[source.name] = {**shape, "bytes": bytes_of(path), "rmse": rmse}
    index = {"run": dict(run or {}), "tables": tables, "files": metadata_digests(directory)}
    if jax.process_index() == 0:
        write_index(directory, index)
    return index


def _check(source: Source, bits: int) -> None:
    """Raise ExportError if the shape or the sharding of a table is not supported."""
    shape = source.array.shape
    if len(shape) != 2 or not (0 < source.rows <= shape[0] and 0 < source.width <= shape[1]):
        raise ExportError(
            f"table {source.name!r}: {source.rows} rows of {source.width} columns do not fit into "
            f"an array of shape {shape}; give the shape of the table, at most that of the array"
        )
    columns = columns_of(source)
    if bits == 4 and columns < source.width and columns % 2:
        raise ExportError(
            f"table {source.name!r}: {columns} columns per device, but 4-bit columns share a byte "
            "in pairs; export 8 bits, or use a mesh with an even number of columns per device"
        )


def _write_table(source: Source, directory: Path, bits: int) -> float:
    """Write a table; return the sum of squared errors of all its values."""
    is_sent = uri_of(directory) is not None and jax.process_count() > 1
    pieces = [gathered_piece(source)] if is_sent else pieces_of(source, bits)
    error = 0.0
    if not is_sent or jax.process_index() == 0:
        columns = source.width if is_sent else columns_of(source)
        error = _write_pieces(source, pieces, columns, directory, bits)
    else:  # take part in sending the rows
        for piece, begin, end in blocks_of(pieces):
            piece.read(begin, end)
    if jax.process_count() > 1:
        error = float(np.sum(multihost_utils.process_allgather(np.float32(error))))
    return error


def _write_pieces(
    source: Source, pieces: Iterable[Piece], columns: int, directory: Path, bits: int
) -> float:
    """Write pieces in chunks of `columns` columns; return the sum of their squared errors."""
    path = table_directory(directory, source.name)
    per_byte = 2 if bits == 4 else 1
    arrays = {
        name: open_array(path / name, dtype, shape, -(-columns // per_byte))
        for name, (dtype, shape) in arrays_of(source.rows, source.width, bits).items()
    }
    error = 0.0
    pending = deque[list[Any]]()
    for piece, begin, end in blocks_of(pieces):
        x = piece.read(begin, end)
        # Per-row bounds cost more than the two extremes, and float32 needs them only for the error.
        if bits != 32 or not np.isfinite([x.min(), x.max()]).all():
            low, high = piece.bounds(begin, end) if piece.bounds else (x.min(axis=1), x.max(axis=1))
            _require_finite(source.name, low, high, begin)
        blocks = {"values": x}
        if bits != 32:
            coded = quantize_between(x, low, high, bits)
            error += float(np.square(dequantize(coded) - x, dtype=np.float64).sum())
            blocks = {"codes": coded.codes}
            if piece.column == 0:  # scale and middle are per row: one piece writes them
                blocks |= {"scale": coded.scale, "middle": coded.middle}
        written = []
        for name, block in blocks.items():
            left = piece.column // per_byte
            region = (slice(begin, end), slice(left, left + block.shape[-1]))[: block.ndim]
            written.append(arrays[name][region].write(block))
        pending.append(written)
        if len(pending) > _IN_FLIGHT:
            _finish(pending.popleft())
    while pending:
        _finish(pending.popleft())
    return error


def _require_finite(name: str, low: np.ndarray, high: np.ndarray, begin: int) -> None:
    try:
        require_finite(low, high, begin)
    except ValueError as e:
        raise ExportError(f"table {name!r}: {e}") from e


def _finish(writes: list[Any]) -> None:
    for write in writes:
        write.result()


def _wait_for_all(where: str) -> None:
    """Wait for all processes."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"ligr export: {where}")
