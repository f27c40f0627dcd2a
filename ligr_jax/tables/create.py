"""Initialization of tables, block by block on the device that stores the block.

No device ever stores more than its part. Row r of a table is normal, drawn with a key that depends
only on the table and r, so its values are equal on every mesh and with every placement and padding.
"""

import zlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

from ligr_jax.tables.layout import Layout

_BLOCK = 2**12  # rows drawn at once


def create(
    layout: Layout, key: jax.Array, stddev: float = 0.0, effects: Mapping[str, int] | None = None
) -> dict[str, jax.Array]:
    """Initialize the stored arrays of all tables, float32.

    Call it under the mesh of `jax.set_mesh` if there are several devices.

    Args:
        layout: layout of the tables.
        key: random key.
        stddev: standard deviation of the entries; 0 for E^-1/2.
        effects: by table, the number of last columns that are zero.

    Returns:
        Stored arrays by name.
    """

    def on_device(key: jax.Array) -> dict[str, jax.Array]:
        return {name: _part(layout, name, key, stddev, effects or {}) for name in layout.arrays}

    if layout.devices == 1:
        return on_device(key)
    specs = {name: stored.spec(2) for name, stored in layout.arrays.items()}
    return jax.shard_map(on_device, in_specs=P(), out_specs=specs, check_vma=False)(key)


def _part(
    layout: Layout, name: str, key: jax.Array, stddev: float, effects: Mapping[str, int]
) -> jax.Array:
    """Return this device's part of a stored array."""
    stored = layout.arrays[name]
    spans = [layout.spans[t] for tables in stored.members for t in tables]
    width = spans[0].width
    device = lax.axis_index("model") if layout.model > 1 else 0
    # The rectangle of the array that this device stores.
    rows = stored.rows
    columns = stored.width
    first_row: jax.Array | int = 0
    first_column: jax.Array | int = 0
    if stored.placement in ("row_wise", "table_wise"):
        rows //= layout.model
        first_row = device * rows
    if stored.placement == "column_wise":
        columns //= layout.model
        first_column = device * columns
    # The tables in the order of their rows in the array.
    names = [t for tables in stored.members for t in tables]
    keys = jnp.stack([jax.random.fold_in(key, zlib.crc32(t.encode())) for t in names])
    zero = jnp.array([effects.get(t, 0) for t in names])
    starts, ends = (jnp.array(x) for x in zip(*((s.first, s.first + s.rows) for s in spans)))

    def draw(row: jax.Array) -> jax.Array:
        """Return a full row of the array, [E]; zeros for padding between tables."""
        table = jnp.searchsorted(starts, row, side="right") - 1
        entries = jax.random.normal(jax.random.fold_in(keys[table], row - starts[table]), (width,))
        if not effects.keys().isdisjoint(names):
            entries = jnp.where(jnp.arange(width) < width - zero[table], entries, 0.0)
        return jnp.where(row < ends[table], entries * (stddev or width**-0.5), 0.0)

    block = min(rows, _BLOCK)

    def fill(i: jax.Array, part: jax.Array) -> jax.Array:
        start = jnp.minimum(i * block, rows - block)  # the last block overlaps the one before
        drawn = jax.vmap(draw)(first_row + start + jnp.arange(block))
        padded = jnp.pad(drawn, ((0, 0), (0, stored.width - width)))
        of_device = lax.dynamic_slice_in_dim(padded, first_column, columns, axis=1)
        return lax.dynamic_update_slice_in_dim(part, of_device, start, axis=0)

    result: jax.Array = lax.fori_loop(0, -(-rows // block), fill, jnp.zeros((rows, columns)))
    return result
