"""How a model's tables lie on a mesh: whole, by columns, by rows, or each on one device.

    replicated   every device has the whole table
    column       E over the axis `model`: a device has some columns of every row (LiRank's choice)
    row          V over the axis `model`: a device has some whole rows
    table        tables of one width lie one after another in one array, each on one of the
                 devices of the axis `model`

Devices along the axis `data` have the same. What does not divide evenly is padded with zeros.
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
PARTS = P(AXES)  # the leading axis in equal parts, one a device
Placement = Literal["replicated", "column", "row", "table"]


class Stored(NamedTuple):
    """An array [rows, width] as stored, padding included.

    members: the tables of each device of the axis `model` for placement `table`; else one table.
    """

    placement: Placement
    rows: int
    width: int
    members: tuple[tuple[str, ...], ...]

    def spec(self, ndim: int) -> P:
        """Of the table, or of an optimizer's array of a number or of E numbers a row."""
        if self.placement == "replicated" or (self.placement == "column" and ndim == 1):
            return P()
        return P(None, "model") if self.placement == "column" else P("model")

    def join(self, tables: Mapping[str, jax.Array]) -> jax.Array:
        """The array of its tables [V, E], or of a number per row [V] of each."""
        block, some = self.rows // len(self.members), next(iter(tables.values()))
        blocks = []
        for held in self.members:
            rows = [tables[t] for t in held] or [jnp.zeros((0, *some.shape[1:]), some.dtype)]
            whole = jnp.concatenate(rows) if len(rows) > 1 else rows[0]
            wide = self.width - whole.shape[1] if whole.ndim == 2 else 0
            blocks.append(jnp.pad(whole, ((0, block - len(whole)), (0, wide))[: whole.ndim]))
        return jnp.concatenate(blocks) if len(blocks) > 1 else blocks[0]


class Span(NamedTuple):
    """A table's place in a stored array: `rows` rows from `first`, `width` columns."""

    stored: str
    first: int
    rows: int
    width: int


@dataclass(frozen=True)
class Layout:
    """The stored arrays of a model's tables on a mesh of `data` x `model` devices."""

    data: int
    model: int
    placements: Mapping[str, Placement]
    arrays: Mapping[str, Stored]
    spans: Mapping[str, Span]

    @property
    def devices(self) -> int:
        return self.data * self.model

    def pack(self, tables: Mapping[str, Any]) -> dict[str, Any]:
        """Stored arrays of tables [V, E], or of what an optimizer keeps of their rows, by table."""
        packed = {}
        for name, stored in self.arrays.items():
            held = [t for names in stored.members for t in names]
            packed[name] = jax.tree.map(
                lambda *leaves, stored=stored, held=held: stored.join(dict(zip(held, leaves))),
                *(tables[t] for t in held),
            )
        return packed

    def unpack(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """The inverse of `pack`."""

        def cut(x: jax.Array, span: Span) -> jax.Array:
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
    """The layout of tables placed as told, by default (and where `model` is 1) replicated.

    Names of stored arrays are keys of states and checkpoints: those of tables, escaped.
    """
    told = {
        name: (placements or {}).get(name, "replicated") if model > 1 else "replicated"
        for name in shapes
    }
    arrays, spans = {}, {}
    for name, (rows, width) in shapes.items():
        if told[name] == "table":
            continue
        stored_rows = _multiple(rows, model) if told[name] == "row" else rows
        stored_width = _multiple(width, model) if told[name] == "column" else width
        arrays[escape(name)] = Stored(told[name], stored_rows, stored_width, ((name,),))
        spans[name] = Span(escape(name), 0, rows, width)
    for width in sorted({shapes[name].width for name in shapes if told[name] == "table"}):
        group = {n: s.rows for n, s in shapes.items() if told[n] == "table" and s.width == width}
        members = _shared_out(group, model)
        block = max(sum(group[n] for n in held) for held in members)
        array = f"width_{width}"
        while array in arrays:  # a table of this name
            array += "_"
        arrays[array] = Stored("table", block * model, width, members)
        for k, held in enumerate(members):
            first = k * block
            for name in held:
                spans[name] = Span(array, first, group[name], width)
                first += group[name]
    return Layout(data, model, told, arrays, {name: spans[name] for name in shapes})


def _shared_out(rows: Mapping[str, int], devices: int) -> tuple[tuple[str, ...], ...]:
    """Tables of each device: the largest first, each to the device that has least."""
    held: list[list[str]] = [[] for _ in range(devices)]
    for name in sorted(rows, key=lambda n: (-rows[n], n)):
        min(held, key=lambda names: sum(rows[n] for n in names)).append(name)
    return tuple(map(tuple, held))


def _multiple(size: int, of: int) -> int:
    return math.ceil(size / of) * of
