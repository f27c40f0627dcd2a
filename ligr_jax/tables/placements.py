"""What one device does for a stored array of tables, placement by placement.

Under `jax.shard_map` over the axes `data` and `model`. The device's part of a batch looks up `own`
rows [u]; `look_up` brings them, whichever devices hold them. `merge` brings the gradients of all
parts to the devices that hold the rows, summed over `rows` [U], the distinct rows of the batch.
What travels are ids and rows of a batch, never an array of V rows.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

from ligr_jax.data.distinct import Distinct
from ligr_jax.tables.layout import AXES, Layout
from ligr_jax.tables.sparse import gather

Arrays = Mapping[str, jax.Array]
Lists = Mapping[str, Distinct]  # by table; `own` and `place` are [u], this device's


class Replicated:
    """The whole table on every device: nothing travels to look it up.

    merged: how devices share what `merge` gives.
    rising: whether rows to move are, those of others aside.
    """

    merged, rising = P(), True

    def __init__(self, name: str, layout: Layout) -> None:
        """name: of the stored array."""
        self.layout, self.stored = layout, layout.arrays[name]
        ((self.name,),) = self.stored.members
        self.span = layout.spans[self.name]

    def look_up(self, array: jax.Array, own: Arrays) -> dict[str, jax.Array]:
        """Rows [u, E] by table."""
        return {self.name: gather(array, own[self.name])}

    def merge(self, gradients: Arrays, lists: Lists) -> jax.Array:
        """Gradients [u, E] by table, summed over the batch for the rows that `local_rows` names."""
        mine = lists[self.name]
        if self.layout.devices == 1:
            return gradients[self.name]  # own rows are all rows
        summed = _sum(gradients[self.name], mine.place, len(mine.rows))
        return lax.psum(summed, AXES)

    def local_rows(self, lists: Lists) -> jax.Array:
        """Rows of this device's array that the batch moves; those outside it are another's."""
        return lists[self.name].rows

    def mean(self, x: jax.Array) -> jax.Array:
        """Of whole rows; a device may have some columns of x [U, E]."""
        return jnp.mean(x, axis=1)


class Columns(Replicated):
    """Some columns of every row (LiRank 4.1): ids are gathered from all devices, and one all-to-all
    brings every device the rows it asked for; gradients go back the same way."""

    merged = P(None, "model")

    def look_up(self, array: jax.Array, own: Arrays) -> dict[str, jax.Array]:
        ids = lax.all_gather(own[self.name], "model")
        found = _to_owners(gather(array, ids))  # [shard of columns, u, columns]
        rows = jnp.moveaxis(found, 0, 1).reshape(found.shape[1], -1)
        return {self.name: rows[:, : self.span.width]}

    def merge(self, gradients: Arrays, lists: Lists) -> jax.Array:
        mine, g = lists[self.name], gradients[self.name]
        g = jnp.pad(g, ((0, 0), (0, self.stored.width - self.span.width)))
        parts = _to_owners(jnp.moveaxis(g.reshape(len(g), self.layout.model, -1), 1, 0))
        return lax.psum(_sum(parts, lax.all_gather(mine.place, "model"), len(mine.rows)), "data")

    def mean(self, x: jax.Array) -> jax.Array:
        return lax.psum(x.sum(axis=1), "model") / self.span.width


class Rows(Replicated):
    """Some whole rows: every device looks for the ids of all, and what they find is summed."""

    rising = False

    def look_up(self, array: jax.Array, own: Arrays) -> dict[str, jax.Array]:
        ids = self._local(lax.all_gather(own[self.name], "model"))
        rows = gather(array, jnp.where(ids < 0, len(array), ids))
        return {self.name: lax.psum_scatter(rows, "model", scatter_dimension=0)}

    def merge(self, gradients: Arrays, lists: Lists) -> jax.Array:
        mine = lists[self.name]
        g, place = lax.all_gather((gradients[self.name], mine.place), "model")
        return lax.psum(_sum(g, place, len(mine.rows)), "data")

    def local_rows(self, lists: Lists) -> jax.Array:
        return self._local(lists[self.name].rows)

    def _local(self, ids: jax.Array) -> jax.Array:
        return ids - lax.axis_index("model") * (self.stored.rows // self.layout.model)


class Whole:
    """Tables of one width, each on one device. Lists of a device's tables are stacked in slots,
    [device, slot, longest], so that one all-to-all serves them all."""

    merged, rising = P("model"), False

    def __init__(self, name: str, layout: Layout) -> None:
        self.layout, self.stored = layout, layout.arrays[name]
        self.block = self.stored.rows // layout.model
        self.slots = max(map(len, self.stored.members))

    def look_up(self, array: jax.Array, own: Arrays) -> dict[str, jax.Array]:
        found = _to_owners(gather(array, _to_owners(self._in_block(own))))
        return {t: found[device, slot, : len(own[t])] for device, slot, t in self._places()}

    def merge(self, gradients: Arrays, lists: Lists) -> jax.Array:
        longest = max(len(lists[t].rows) for _, _, t in self._places())
        total = self.slots * longest
        place = {
            t: jnp.where(
                lists[t].place < len(lists[t].rows), lists[t].place + slot * longest, total
            )
            for _, slot, t in self._places()
        }
        g = _to_owners(self._stack(gradients, 0.0))
        return lax.psum(_sum(g, _to_owners(self._stack(place, total)), total), "data")

    def local_rows(self, lists: Lists) -> jax.Array:
        rows = self._in_block({t: lists[t].rows for _, _, t in self._places()})
        return rows[lax.axis_index("model")].reshape(-1)

    def mean(self, x: jax.Array) -> jax.Array:
        return jnp.mean(x, axis=1)

    def _places(self) -> list[tuple[int, int, str]]:
        """Device, slot and name of each table."""
        held = enumerate(self.stored.members)
        return [(device, slot, t) for device, names in held for slot, t in enumerate(names)]

    def _in_block(self, rows: Arrays) -> jax.Array:
        """Rows of tables as rows of their device's array, int32 [device, slot, longest]."""
        moved = {}
        for device, _, t in self._places():
            span = self.layout.spans[t]
            inside = rows[t] + span.first - device * self.block
            moved[t] = jnp.where(rows[t] < span.rows, inside, self.block)
        return self._stack(moved, self.block)

    def _stack(self, by_table: Arrays, nothing: float) -> jax.Array:
        """[device, slot, longest, ...]; `nothing` where a list ends or there is no table."""
        some = [by_table[t] for _, _, t in self._places()]
        shape = (self.layout.model, self.slots, max(map(len, some)), *some[0].shape[1:])
        out = jnp.full(shape, nothing, some[0].dtype)
        for device, slot, t in self._places():
            out = out.at[device, slot, : len(by_table[t])].set(by_table[t])
        return out


EXCHANGES: dict[str, type[Replicated] | type[Whole]] = {
    "replicated": Replicated,
    "column": Columns,
    "row": Rows,
    "table": Whole,
}


def _to_owners(x: jax.Array) -> jax.Array:
    """Slice k goes to device k of the axis `model`, and comes back as slice "from me"."""
    return lax.all_to_all(x, "model", 0, 0)


def _sum(g: jax.Array, place: jax.Array, count: int) -> jax.Array:
    """Rows [..., E] summed by their places [...]: [count, E]; places beyond are dropped."""
    width = g.shape[-1]
    zero = jnp.zeros((count, width), g.dtype)
    return zero.at[place.reshape(-1)].add(g.reshape(-1, width), mode="drop")
