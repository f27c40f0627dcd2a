"""Placement of a model's tables on a mesh.

    replicated   every device stores the full table
    column_wise  E is sharded over the axis `model`: a device stores some columns of every row
                 (LiRank's choice)
    row_wise     V is sharded over the axis `model`: a device stores some full rows
    table_wise   the tables of one width are concatenated in one array, each on one of the devices
                 of the axis `model`

All placements are replicated over the axis `data`. Dimensions that do not divide evenly are padded
with zeros.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from ligr_jax.config import TableShape, escape

AXES = ("data", "model")
PARTS = P(AXES)  # shards the leading axis over all devices
Placement = Literal["replicated", "column_wise", "row_wise", "table_wise"]


class Stored(NamedTuple):
    """A stored array [rows, width], including padding.

    `members` has the tables of each device of the axis `model` for placement
    `table_wise`; otherwise it has one table.
    """

    placement: Placement
    rows: int
    width: int
    members: tuple[tuple[str, ...], ...]

    def spec(self, ndim: int) -> P:
        """Return the partition spec of the array, or of optimizer state [V] or [V, E]."""
        if self.placement == "replicated" or (self.placement == "column_wise" and ndim == 1):
            return P()
        return P(None, "model") if self.placement == "column_wise" else P("model")

    def join(self, tables: Mapping[str, jax.Array]) -> jax.Array:
        """Return the array of its tables [V, E], or of one number per row [V] of each table."""
        block = self.rows // len(self.members)
        example = next(iter(tables.values()))
        blocks = []
        for names in self.members:
            rows = [tables[t] for t in names]
            rows = rows or [jnp.zeros((0, *example.shape[1:]), example.dtype)]
            joined = jnp.concatenate(rows) if len(rows) > 1 else rows[0]
            missing = self.width - joined.shape[1] if joined.ndim == 2 else 0
            blocks.append(jnp.pad(joined, ((0, block - len(joined)), (0, missing))[: joined.ndim]))
        return jnp.concatenate(blocks) if len(blocks) > 1 else blocks[0]


class TableSpan(NamedTuple):
    """Position of a table in a stored array: `rows` rows from `first`, `width` columns."""

    stored: str
    first: int
    rows: int
    width: int


@dataclass(frozen=True)
class Layout:
    """Stored arrays of a model's tables on a mesh of `data` x `model` devices.

    Attributes:
        data: devices of the axis `data`.
        model: devices of the axis `model`.
        placements: placement of each table.
        arrays: stored arrays by name.
        spans: position of each table in its stored array.
    """

    data: int
    model: int
    placements: Mapping[str, Placement]
    arrays: Mapping[str, Stored]
    spans: Mapping[str, TableSpan]

    @property
    def devices(self) -> int:
        """Number of devices of the mesh."""
        return self.data * self.model

    def pack(self, tables: Mapping[str, Any]) -> dict[str, Any]:
        """Convert tables [V, E], or the optimizer state of their rows, to stored arrays."""
        packed = {}
        for name, stored in self.arrays.items():
            members = [t for names in stored.members for t in names]
            packed[name] = jax.tree.map(
                lambda *leaves, stored=stored, members=members: stored.join(
                    dict(zip(members, leaves))
                ),
                *(tables[t] for t in members),
            )
        return packed

    def unpack(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """Convert stored arrays to tables; the inverse of `pack`."""

        def cut(x: jax.Array, span: TableSpan) -> jax.Array:
            rows = x[span.first : span.first + span.rows]
            return rows[:, : span.width] if x.ndim == 2 else rows

        return {
            table: jax.tree.map(lambda x, span=span: cut(x, span), arrays[span.stored])
            for table, span in self.spans.items()
        }


def layout(
    shapes: Mapping[str, TableShape],
    placements: Mapping[str, Placement] | None = None,
    data: int = 1,
    model: int = 1,
) -> Layout:
    """Compute the layout of tables.

    Names of stored arrays, which are keys of states and checkpoints, are escaped names of tables.

    Args:
        shapes: (V, E) of each table.
        placements: placement by table; default, and always if `model` is 1: replicated.
        data: devices of the axis `data`.
        model: devices of the axis `model`.
    """
    chosen: dict[str, Placement] = {
        name: (placements or {}).get(name, "replicated") if model > 1 else "replicated"
        for name in shapes
    }
    arrays = {}
    spans = {}
    # Every table has an array of its own, padded to divide by `model` ...
    for name, (rows, width) in shapes.items():
        placement = chosen[name]
        if placement == "table_wise":
            continue
        stored_rows = _round_up(rows, model) if placement == "row_wise" else rows
        stored_width = _round_up(width, model) if placement == "column_wise" else width
        arrays[escape(name)] = Stored(
            placement=placement, rows=stored_rows, width=stored_width, members=((name,),)
        )
        spans[name] = TableSpan(stored=escape(name), first=0, rows=rows, width=width)
    # ... except tables with placement `table_wise`: those of one width share an array with one
    # block of equal size per device.
    for width in sorted({shapes[name].width for name in shapes if chosen[name] == "table_wise"}):
        group = {
            n: s.rows for n, s in shapes.items() if chosen[n] == "table_wise" and s.width == width
        }
        members = _balance(group, model)
        block = max(sum(group[n] for n in names) for names in members)
        array = f"width_{width}"
        while array in arrays:  # a table has this name
            array += "_"
        arrays[array] = Stored(
            placement="table_wise", rows=block * model, width=width, members=members
        )
        for k, names in enumerate(members):
            first = k * block
            for name in names:
                spans[name] = TableSpan(stored=array, first=first, rows=group[name], width=width)
                first += group[name]
    return Layout(
        data=data,
        model=model,
        placements=chosen,
        arrays=arrays,
        spans={name: spans[name] for name in shapes},
    )


def _balance(rows: Mapping[str, int], devices: int) -> tuple[tuple[str, ...], ...]:
    """Assign tables to devices: the largest first, each to the device with the fewest rows."""
    members: list[list[str]] = [[] for _ in range(devices)]
    for name in sorted(rows, key=lambda n: (-rows[n], n)):
        min(members, key=lambda names: sum(rows[n] for n in names)).append(name)
    return tuple(map(tuple, members))


def _round_up(size: int, multiple: int) -> int:
    return math.ceil(size / multiple) * multiple
