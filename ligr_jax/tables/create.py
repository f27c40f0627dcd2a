"""Fresh tables, made block by block where they lie: no device ever holds more than its part.

Row r of a table is normal, drawn with a key of the table and r alone, so it is the same on every
mesh, however the table is placed and padded.
"""

import zlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

from ligr_jax.tables.layout import Layout

_BLOCK = 2**12  # rows drawn at a time


def create(
    layout: Layout, key: jax.Array, stddev: float = 0.0, effects: Mapping[str, int] | None = None
) -> dict[str, jax.Array]:
    """The stored arrays, float32; under the mesh of `jax.set_mesh` where there are several devices.

    stddev: of the entries of a row; 0 for E^-1/2.
    effects: by table, how many of its last columns are zero.
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
    """This device's part of a stored array."""
    stored = layout.arrays[name]
    spans = [layout.spans[t] for held in stored.members for t in held]
    width, device = spans[0].width, lax.axis_index("model") if layout.model > 1 else 0
    rows, columns = stored.rows, stored.width
    first_row: jax.Array | int = 0
    first_column: jax.Array | int = 0
    if stored.placement in ("row", "table"):
        rows //= layout.model
        first_row = device * rows
    if stored.placement == "column":
        columns //= layout.model
        first_column = device * columns
    # The tables in the order in which they lie in the array.
    names = [t for held in stored.members for t in held]
    keys = jnp.stack([jax.random.fold_in(key, zlib.crc32(t.encode())) for t in names])
    zero = jnp.array([effects.get(t, 0) for t in names])
    starts, ends = (jnp.array(x) for x in zip(*((s.first, s.first + s.rows) for s in spans)))

    def draw(at: jax.Array) -> jax.Array:
        """Row `at` of the array, whole: [E]."""
        table = jnp.searchsorted(starts, at, side="right") - 1
        entries = jax.random.normal(jax.random.fold_in(keys[table], at - starts[table]), (width,))
        if not effects.keys().isdisjoint(names):
            entries = jnp.where(jnp.arange(width) < width - zero[table], entries, 0.0)
        return jnp.where(at < ends[table], entries * (stddev or width**-0.5), 0.0)

    block = min(rows, _BLOCK)

    def fill(i: jax.Array, part: jax.Array) -> jax.Array:
        at = jnp.minimum(i * block, rows - block)  # the last block overlaps the one before
        drawn = jax.vmap(draw)(first_row + at + jnp.arange(block))
        whole = jnp.pad(drawn, ((0, 0), (0, stored.width - width)))
        mine = lax.dynamic_slice_in_dim(whole, first_column, columns, axis=1)
        return lax.dynamic_update_slice_in_dim(part, mine, at, axis=0)

    return lax.fori_loop(0, -(-rows // block), fill, jnp.zeros((rows, columns)))
