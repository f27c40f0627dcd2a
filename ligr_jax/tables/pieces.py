"""The parts of a table that this process exports, and their transfer to the host in blocks."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ligr_jax.tables.zarr import SHARD_ROWS, ExportError


class Source(NamedTuple):
    """A table to export: the first `rows` rows and `width` columns of a NumPy or JAX array."""

    name: str
    array: Any
    rows: int
    width: int


class Piece(NamedTuple):
    """A rectangle of a table, without padding, that this process writes.

    Attributes:
        row: first row.
        column: first column.
        rows: number of rows.
        columns: number of columns.
        read: (start, stop), rows of the table -> float32 [stop - start, columns] on the host.
        bounds: (start, stop) -> per-row min and max over all columns of the table; None if the
            piece has all columns.
    """

    row: int
    column: int
    rows: int
    columns: int
    read: Callable[[int, int], np.ndarray]
    bounds: Callable[[int, int], tuple[np.ndarray, np.ndarray]] | None


def columns_of(source: Source) -> int:
    """Return the number of columns of the table that one device stores."""
    columns = source.array.shape[1]
    if isinstance(source.array, jax.Array):
        columns = source.array.sharding.shard_shape(source.array.shape)[1]
    result: int = min(columns, source.width)
    return result


def blocks_of(pieces: Iterable[Piece]) -> Iterator[tuple[Piece, int, int]]:
    """Yield (piece, begin, end): the pieces, cut at the boundaries of shards."""
    for piece in pieces:
        begin, stop = piece.row, piece.row + piece.rows
        while begin < stop:
            end = min(stop, (begin // SHARD_ROWS + 1) * SHARD_ROWS)
            yield piece, begin, end
            begin = end


def pieces_of(source: Source, bits: int) -> Iterator[Piece]:
    """Yield the pieces that this process writes; replicas are written once."""
    array = source.array
    rows = source.rows
    width = source.width
    if not isinstance(array, jax.Array):
        if jax.process_index() == 0:
            yield Piece(
                row=0,
                column=0,
                rows=rows,
                columns=width,
                read=lambda a, b: np.asarray(array[a:b, :width], np.float32),
                bounds=None,
            )
        return
    # Quantization needs the range of full rows, which a shard of columns does not have.
    ranges = None
    if bits != 32 and columns_of(source) < width:
        low_high = _ranges(array, width)
        ranges = [{s.device: s.data for s in x.addressable_shards} for x in low_high]
    for shard in array.addressable_shards:
        row, column = (s.start or 0 for s in shard.index)
        piece_rows = min(rows, row + shard.data.shape[0]) - row
        piece_columns = min(width, column + shard.data.shape[1]) - column
        if shard.replica_id != 0 or piece_rows <= 0 or piece_columns <= 0:
            continue  # a copy, or only padding
        bounds = None
        if ranges is not None:
            low, high = (r[shard.device] for r in ranges)
            bounds = _bounds(low, high, row)
        yield Piece(
            row=row,
            column=column,
            rows=piece_rows,
            columns=piece_columns,
            read=_reader(shard.data, row, piece_columns),
            bounds=bounds,
        )


def gathered_piece(source: Source) -> Piece:
    """Return a whole table as one piece, whose blocks are sent to all processes.

    All processes call `Piece.read` with the same rows.
    """
    array, width = source.array, source.width
    if isinstance(array, jax.Array):
        if not isinstance(array.sharding, NamedSharding):
            raise ExportError(f"the table's sharding is {array.sharding}; use a NamedSharding")
        everywhere = NamedSharding(array.sharding.mesh, PartitionSpec())
        take = jax.jit(_take_rows, static_argnums=2, out_shardings=everywhere)

    def read(begin: int, end: int) -> np.ndarray:
        if not isinstance(array, jax.Array):
            return np.asarray(array[begin:end, :width], np.float32)
        # The same number of rows in each call, so that it is compiled once.
        rows_VE = take(array, begin, min(SHARD_ROWS, array.shape[0])).addressable_data(0)
        return np.asarray(rows_VE)[: end - begin, :width].astype(np.float32, copy=False)

    return Piece(row=0, column=0, rows=source.rows, columns=width, read=read, bounds=None)


def _take_rows(array: jax.Array, begin: Any, count: int) -> jax.Array:
    # Not a slice: XLA would send the whole table to cut it.
    return jnp.take(array, begin + jnp.arange(count), axis=0, mode="clip")


def _reader(data: jax.Array, row: int, columns: int) -> Callable[[int, int], np.ndarray]:
    """Return `Piece.read` of a shard that begins at `row`."""

    def read(a: int, b: int) -> np.ndarray:
        return _rows(data, a - row, b - row)[:, :columns].astype(np.float32, copy=False)

    return read


def _bounds(low: jax.Array, high: jax.Array, row: int) -> Callable[[int, int], Any]:
    """Return `Piece.bounds` of a shard that begins at `row`."""

    def bounds(a: int, b: int) -> tuple[np.ndarray, np.ndarray]:
        return _rows(low, a - row, b - row), _rows(high, a - row, b - row)

    return bounds


def _rows(data: jax.Array, begin: int, end: int) -> np.ndarray:
    # data[begin:end] would be compiled again for every block.
    return np.asarray(jax.lax.dynamic_slice_in_dim(data, begin, end - begin))


def _ranges(array: jax.Array, width: int) -> tuple[jax.Array, jax.Array]:
    """Return per-row min and max [V] of a table whose columns are sharded."""
    if not isinstance(array.sharding, NamedSharding):
        raise ExportError(f"the table's sharding is {array.sharding}; use a NamedSharding")
    over_rows = PartitionSpec(*array.sharding.spec[:1])
    sharding = NamedSharding(array.sharding.mesh, over_rows)

    def low_high(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        is_column = jnp.arange(x.shape[1]) < width  # the other columns are padding
        x = x.astype(jnp.float32)
        low = jnp.min(jnp.where(is_column, x, jnp.inf), axis=1)
        return low, jnp.max(jnp.where(is_column, x, -jnp.inf), axis=1)

    result: tuple[jax.Array, jax.Array] = jax.jit(low_high, out_shardings=(sharding, sharding))(
        array
    )
    return result
