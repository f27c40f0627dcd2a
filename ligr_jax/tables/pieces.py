"""Which parts of a table this process holds, and how to bring them to the host in blocks."""

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
    """A rectangle of a table that this process writes, without what is padding.

    read: (start, stop), rows of the table -> float32 [stop - start, columns], on the host.
    bounds: the same -> smallest and largest value of whole rows, where the piece has them not.
    """

    row: int
    column: int
    rows: int
    columns: int
    read: Callable[[int, int], np.ndarray]
    bounds: Callable[[int, int], tuple[np.ndarray, np.ndarray]] | None


def columns_of(source: Source) -> int:
    """Columns of the table that one device holds."""
    held = source.array.shape[1]
    if isinstance(source.array, jax.Array):
        held = source.array.sharding.shard_shape(source.array.shape)[1]
    return min(held, source.width)


def blocks_of(pieces: Iterable[Piece]) -> Iterator[tuple[Piece, int, int]]:
    """Pieces cut where shards begin."""
    for piece in pieces:
        begin, stop = piece.row, piece.row + piece.rows
        while begin < stop:
            end = min(stop, (begin // SHARD_ROWS + 1) * SHARD_ROWS)
            yield piece, begin, end
            begin = end


def pieces_of(source: Source, bits: int) -> Iterator[Piece]:
    """What this process writes; of copies of one part, one is written."""
    array, rows, width = source.array, source.rows, source.width
    if not isinstance(array, jax.Array):
        if jax.process_index() == 0:
            yield Piece(
                0, 0, rows, width, lambda a, b: np.asarray(array[a:b, :width], np.float32), None
            )
        return
    ranges = None
    if bits != 32 and columns_of(source) < width:
        low_high = _ranges(array, width)
        ranges = [{s.device: s.data for s in x.addressable_shards} for x in low_high]
    for shard in array.addressable_shards:
        row, column = (s.start or 0 for s in shard.index)
        here = min(rows, row + shard.data.shape[0]) - row
        wide = min(width, column + shard.data.shape[1]) - column
        if shard.replica_id != 0 or here <= 0 or wide <= 0:
            continue
        bounds = None
        if ranges is not None:
            low, high = (r[shard.device] for r in ranges)
            bounds = _bounds(low, high, row)
        yield Piece(row, column, here, wide, _reader(shard.data, row, wide), bounds)


def _reader(data: jax.Array, row: int, columns: int) -> Callable[[int, int], np.ndarray]:
    return lambda a, b: _rows(data, a - row, b - row)[:, :columns].astype(np.float32, copy=False)


def _bounds(low: jax.Array, high: jax.Array, row: int) -> Callable[[int, int], Any]:
    return lambda a, b: (_rows(low, a - row, b - row), _rows(high, a - row, b - row))


def _rows(data: jax.Array, begin: int, end: int) -> np.ndarray:
    # Not data[begin:end]: that would be compiled anew for every block.
    return np.asarray(jax.lax.dynamic_slice_in_dim(data, begin, end - begin))


def _ranges(array: jax.Array, width: int) -> tuple[jax.Array, jax.Array]:
    """Smallest and largest value [V] of rows split over devices, where their parts are."""
    if not isinstance(array.sharding, NamedSharding):
        raise ExportError(f"a table split by {array.sharding}; place it with a NamedSharding")
    over_rows = PartitionSpec(*array.sharding.spec[:1])
    place = NamedSharding(array.sharding.mesh, over_rows)

    def both(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        inside = jnp.arange(x.shape[1]) < width
        x = x.astype(jnp.float32)
        low = jnp.min(jnp.where(inside, x, jnp.inf), axis=1)
        return low, jnp.max(jnp.where(inside, x, -jnp.inf), axis=1)

    return jax.jit(both, out_shardings=(place, place))(array)
