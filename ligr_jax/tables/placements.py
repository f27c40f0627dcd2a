"""Per-device communication for a stored array of tables, by placement.

The functions run under `jax.shard_map` over the axes `data` and `model`. A device looks up the u
unique ids of its part of the batch. `gather_rows` brings their rows from the devices that store
them. `reduce_row_grads` sends the gradients of all parts to the devices that store the rows, summed
over the U unique ids of the batch. Only ids and rows of the batch are sent, never an array of V
rows.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

from ligr_jax.data.unique_ids import UniqueIds
from ligr_jax.tables.layout import AXES, Layout
from ligr_jax.tables.sparse import take_rows

Arrays = Mapping[str, jax.Array]
Lists = Mapping[str, UniqueIds]  # by table; `local` and `inverse` are [u], those of this device


class Replicated:
    """Every device stores the whole table, so looking rows up sends nothing.

    Attributes:
        grad_spec: sharding of the result of `reduce_row_grads`.
        ids_are_sorted: whether `local_rows` are sorted, apart from ids that are out of range.
    """

    grad_spec = P()
    ids_are_sorted = True

    def __init__(self, name: str, layout: Layout) -> None:
        """
        Args:
            name: name of the stored array.
            layout: layout of the tables.
        """
        self.layout = layout
        self.stored = layout.arrays[name]
        ((self.name,),) = self.stored.members
        self.span = layout.spans[self.name]

    def gather_rows(self, array: jax.Array, local: Arrays) -> dict[str, jax.Array]:
        """Return the rows [u, E] by table of this device's unique ids."""
        return {self.name: take_rows(array, local[self.name])}

    def reduce_row_grads(self, grads: Arrays, lists: Lists) -> jax.Array:
        """Return gradients [u, E] by table, summed over the batch for the rows of `local_rows`."""
        ids = lists[self.name]
        if self.layout.devices == 1:
            return grads[self.name]  # the local ids are the ids of the batch
        summed = _sum(grads[self.name], ids.inverse, len(ids.unique))
        result: jax.Array = lax.psum(summed, AXES)
        return result

    def local_rows(self, lists: Lists) -> jax.Array:
        """Return row numbers in this device's array of the batch's ids.

        Numbers out of range are rows of another device, or padding.
        """
        result: jax.Array = lists[self.name].unique
        return result

    def mean(self, x: jax.Array) -> jax.Array:
        """Return the mean over full rows, [U], of x [U, columns of this device]."""
        return jnp.mean(x, axis=1)


class ColumnWise(Replicated):
    """Every device stores some columns of every row (LiRank 4.1).

    Ids are gathered from all devices, and one all-to-all returns the rows to the devices that need
    them. Gradients take the opposite way.
    """

    grad_spec = P(None, "model")

    def gather_rows(self, array: jax.Array, local: Arrays) -> dict[str, jax.Array]:
        ids = lax.all_gather(local[self.name], "model")
        shards = _to_owners(take_rows(array, ids))  # [shard of columns, u, columns]
        rows = jnp.moveaxis(shards, 0, 1).reshape(shards.shape[1], -1)
        return {self.name: rows[:, : self.span.width]}

    def reduce_row_grads(self, grads: Arrays, lists: Lists) -> jax.Array:
        ids = lists[self.name]
        g = grads[self.name]
        g = jnp.pad(g, ((0, 0), (0, self.stored.width - self.span.width)))
        shards = _to_owners(jnp.moveaxis(g.reshape(len(g), self.layout.model, -1), 1, 0))
        inverse = lax.all_gather(ids.inverse, "model")
        result: jax.Array = lax.psum(_sum(shards, inverse, len(ids.unique)), "data")
        return result

    def mean(self, x: jax.Array) -> jax.Array:
        result: jax.Array = lax.psum(x.sum(axis=1), "model") / self.span.width
        return result


class RowWise(Replicated):
    """Every device stores some full rows.

    Every device looks up the ids of all devices; ids of other devices give zeros, and a
    reduce-scatter sums the results.
    """

    ids_are_sorted = False

    def gather_rows(self, array: jax.Array, local: Arrays) -> dict[str, jax.Array]:
        ids = self._in_shard(lax.all_gather(local[self.name], "model"))
        rows = take_rows(array, jnp.where(ids < 0, len(array), ids))
        return {self.name: lax.psum_scatter(rows, "model", scatter_dimension=0)}

    def reduce_row_grads(self, grads: Arrays, lists: Lists) -> jax.Array:
        ids = lists[self.name]
        g, inverse = lax.all_gather((grads[self.name], ids.inverse), "model")
        result: jax.Array = lax.psum(_sum(g, inverse, len(ids.unique)), "data")
        return result

    def local_rows(self, lists: Lists) -> jax.Array:
        return self._in_shard(lists[self.name].unique)

    def _in_shard(self, ids: jax.Array) -> jax.Array:
        """Return ids as row numbers of this device's shard; negative for shards before it."""
        return ids - lax.axis_index("model") * (self.stored.rows // self.layout.model)


class TableWise:
    """Tables of one width, each stored on one device.

    Ids of the tables of a device are stacked in slots, [device, slot, longest], so that one
    all-to-all serves all tables. Attributes and methods: see `Replicated`.
    """

    grad_spec = P("model")
    ids_are_sorted = False

    def __init__(self, name: str, layout: Layout) -> None:
        self.layout = layout
        self.stored = layout.arrays[name]
        self.block = self.stored.rows // layout.model
        self.slots = max(map(len, self.stored.members))

    def gather_rows(self, array: jax.Array, local: Arrays) -> dict[str, jax.Array]:
        rows = _to_owners(take_rows(array, _to_owners(self._in_block(local))))
        return {t: rows[device, slot, : len(local[t])] for device, slot, t in self._slots()}

    def reduce_row_grads(self, grads: Arrays, lists: Lists) -> jax.Array:
        # The result has one block of `longest` rows per slot.
        longest = max(len(lists[t].unique) for _, _, t in self._slots())
        total = self.slots * longest
        inverse = {
            t: jnp.where(
                lists[t].inverse < len(lists[t].unique), lists[t].inverse + slot * longest, total
            )
            for _, slot, t in self._slots()
        }
        g = _to_owners(self._stack(grads, 0.0))
        result: jax.Array = lax.psum(
            _sum(g, _to_owners(self._stack(inverse, total)), total), "data"
        )
        return result

    def local_rows(self, lists: Lists) -> jax.Array:
        rows = self._in_block({t: lists[t].unique for _, _, t in self._slots()})
        return rows[lax.axis_index("model")].reshape(-1)

    def mean(self, x: jax.Array) -> jax.Array:
        return jnp.mean(x, axis=1)

    def _slots(self) -> list[tuple[int, int, str]]:
        """Return device, slot and name of each table."""
        members = enumerate(self.stored.members)
        return [(device, slot, t) for device, names in members for slot, t in enumerate(names)]

    def _in_block(self, ids: Arrays) -> jax.Array:
        """Return ids as row numbers of their device's array, int32 [device, slot, longest]."""
        shifted = {}
        for device, _, t in self._slots():
            span = self.layout.spans[t]
            row = ids[t] + span.first - device * self.block
            shifted[t] = jnp.where(ids[t] < span.rows, row, self.block)
        return self._stack(shifted, self.block)

    def _stack(self, by_table: Arrays, fill: float) -> jax.Array:
        """Stack arrays of all tables, [device, slot, longest, ...], padded with `fill`."""
        values = [by_table[t] for _, _, t in self._slots()]
        shape = (self.layout.model, self.slots, max(map(len, values)), *values[0].shape[1:])
        out = jnp.full(shape, fill, values[0].dtype)
        for device, slot, t in self._slots():
            out = out.at[device, slot, : len(by_table[t])].set(by_table[t])
        return out


Exchange = Replicated | TableWise

EXCHANGES: dict[str, type[Replicated] | type[TableWise]] = {
    "replicated": Replicated,
    "column_wise": ColumnWise,
    "row_wise": RowWise,
    "table_wise": TableWise,
}


def _to_owners(x: jax.Array) -> jax.Array:
    """Send slice k to device k of the axis `model`; slice k of the result is from device k."""
    result: jax.Array = lax.all_to_all(x, "model", 0, 0)
    return result


def _sum(g: jax.Array, index: jax.Array, count: int) -> jax.Array:
    """Sum rows [..., E] by index [...] into [count, E]; indices out of range are dropped."""
    width = g.shape[-1]
    zero = jnp.zeros((count, width), g.dtype)
    return zero.at[index.reshape(-1)].add(g.reshape(-1, width), mode="drop")
