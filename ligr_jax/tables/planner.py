"""Choice of a placement for each table by the bytes stored and sent.

Bytes are per device: `stored` includes the optimizer state, `sent` is per training step. A device's
part of a batch has u unique ids of a table, the whole batch U (upper bounds, because shapes are
static). There are n = data x model devices, m = model, d = data:

    replicated   2 (n-1)/n U E                       all-reduce of gradients over all devices
    column_wise  2 (m-1)/m u E + 2 (d-1)/d U E/m     rows, gradients, all-reduce over `data`
    row_wise     2 (m-1) u E   + 2 (d-1)/d U E
    table_wise   2 (m-1) S u E + 2 (d-1)/d S U E     S tables per device, all of one width together

plus the ids. Hence `column_wise` sends least unless a table is small; `replicated` needs the fewest
messages.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import jax
import numpy as np

from ligr_jax.config import ConfigError, ModelConfig, TableShape
from ligr_jax.tables.layout import Layout, Placement, Stored, layout
from ligr_jax.tables.sparse import SparseOptimizer

_FLOAT = _INT = 4  # bytes
_SMALL = 2**20  # bytes sent per step below which a table stays replicated


@dataclass(frozen=True)
class Row:
    """A stored array of the plan, with the bytes stored and sent per device and the reason."""

    tables: tuple[str, ...]
    placement: Placement
    stored: int
    sent: int
    why: str


@dataclass(frozen=True)
class TablePlan:
    """Placement of all tables.

    Attributes:
        layout: layout of the tables.
        shapes: (V, E) of each table.
        rows: cost and reason per stored array.
        budget: bytes per device for tables and their optimizer state.
    """

    layout: Layout
    shapes: Mapping[str, TableShape]
    rows: tuple[Row, ...]
    budget: int

    @property
    def stored(self) -> int:
        """Bytes stored on each device."""
        return sum(row.stored for row in self.rows)

    @property
    def sent(self) -> int:
        """Bytes sent by each device in a step."""
        return sum(row.sent for row in self.rows)

    def lines(self) -> list[str]:
        """Return the plan as aligned text."""
        head = ("table", "rows", "width", "placement", "per device", "sent per step", "reason")
        cells = [head]
        for row in self.rows:
            for i, name in enumerate(row.tables):
                v, e = self.shapes[name]
                costs = (size(row.stored), size(row.sent), row.why) if i == 0 else ("", "", "")
                cells.append((name, f"{v:,}", str(e), row.placement, *costs))
        widths = [max(len(r[i]) for r in cells) for i in range(len(head))]
        d, m = self.layout.data, self.layout.model
        return [
            f"tables on {d} x {m} devices (data x model): {size(self.stored)} of "
            f"{size(self.budget)} on each device, each sends {size(self.sent)} per step",
            *("  " + "  ".join(c.ljust(w) for c, w in zip(r, widths)).rstrip() for r in cells),
        ]


def plan_tables(
    model: ModelConfig,
    ids: Mapping[str, int],
    data: int,
    model_devices: int,
    rule: SparseOptimizer | None,
    budget: int,
    placements: Sequence[str] = ("auto",),
) -> TablePlan:
    """Choose a placement for every table and check it against the memory of a device.

    Nothing is allocated.

    Args:
        model: model configuration.
        ids: number of ids that one device looks up per step, by table.
        data: devices of the axis `data`.
        model_devices: devices of the axis `model`.
        rule: optimizer of the tables; None if they are trained as dense weights.
        budget: bytes per device for tables and their optimizer state.
        placements: `mesh.placement`.

    Raises:
        ConfigError: a table is unknown, a placement is not possible, or the tables exceed the
            budget.
    """
    shapes = model.tables
    requested = _by_table(shapes, placements)
    if rule is None and model_devices > 1:
        wrong = sorted(n for n, p in requested.items() if p not in ("auto", "replicated"))
        if wrong:
            raise ConfigError(
                f"mesh.placement: {', '.join(wrong)} cannot be sharded, because "
                "optim.table_optimizer=adamw trains full tables; choose another optimizer, e.g. "
                "rowwise_adagrad"
            )
        requested = dict.fromkeys(requested, "replicated")
    plan = _decide(_Costs(shapes, ids, data, model_devices, rule), requested, budget)
    if plan.stored > budget:
        # For the message: the smallest power of two that would suffice.
        larger = (_Costs(shapes, ids, data, 2**k, rule) for k in range(1, 17))
        fits = (c.model for c in larger if _decide(c, requested, budget).stored <= budget)
        raise ConfigError(_too_large(plan, next((m for m in fits if m > model_devices), None)))
    return plan


def _decide(costs: "_Costs", requested: Mapping[str, str], budget: int) -> TablePlan:
    """Choose the placement that sends least; shard further tables, largest first, until all fit."""
    chosen: dict[str, Placement] = {}
    reasons: dict[str, str] = {}
    for name, placement in requested.items():
        if costs.model == 1:
            chosen[name], reasons[name] = "replicated", "mesh.model=1"
        elif placement != "auto":
            chosen[name], reasons[name] = cast(Placement, placement), "mesh.placement"
        else:
            chosen[name], reasons[name] = costs.cheapest(name)
    plan = costs.plan(chosen, reasons, budget)
    for name in sorted(requested, key=lambda n: -math.prod(costs.shapes[n])):
        if plan.stored <= budget or costs.model == 1:
            break
        if requested[name] == "auto" and chosen[name] == "replicated":
            chosen[name], reasons[name] = costs.sharded(name), "to fit in memory"
            plan = costs.plan(chosen, reasons, budget)
    return plan


def _by_table(shapes: Mapping[str, TableShape], placements: Sequence[str]) -> dict[str, str]:
    """Return the placement of each table from entries "PLACEMENT" or "TABLE:PLACEMENT"."""
    requested = dict.fromkeys(shapes, "auto")
    for entry in sorted(placements, key=lambda e: ":" in e):  # entries of single tables last
        name, colon, placement = entry.rpartition(":")
        if colon and name not in shapes:
            raise ConfigError(f"mesh.placement={entry}: no table {name}; there are {list(shapes)}")
        requested |= {name: placement} if colon else dict.fromkeys(shapes, placement)
    return requested


class _Costs:
    """Bytes that each placement stores and sends per device."""

    def __init__(
        self,
        shapes: Mapping[str, TableShape],
        ids: Mapping[str, int],
        data: int,
        model: int,
        rule: SparseOptimizer | None,
    ) -> None:
        self.shapes = shapes
        self.data = data
        self.model = model
        self.rule = rule
        state = jax.eval_shape(rule.init, jax.ShapeDtypeStruct((1, 1), np.float32)) if rule else ()
        # Whether the optimizer has one number per row, whose mean over columns must be summed.
        self.by_row = any(x.ndim == 1 for x in jax.tree.leaves(state))
        # Upper bounds of the unique ids of a device (u) and of the batch (U).
        self.local = {t: min(v, ids[t]) for t, (v, _) in shapes.items()}
        self.unique = {t: min(v, ids[t] * data * model) for t, (v, _) in shapes.items()}

    def cheapest(self, name: str) -> tuple[Placement, str]:
        """Return the placement of a table that sends least, and the reason."""
        sharded = self.sharded(name)
        replicated_bytes = self._sent_alone(name, "replicated")
        sharded_bytes = self._sent_alone(name, sharded)
        if replicated_bytes <= _SMALL:
            return "replicated", f"small: sends {size(replicated_bytes)}"
        if sharded_bytes * 2 > replicated_bytes:
            return "replicated", f"{sharded} would send {size(sharded_bytes)}"
        return sharded, f"replicated would send {size(replicated_bytes)}"

    def sharded(self, name: str) -> Placement:
        """Return `column_wise`, or `row_wise` if there are fewer columns than devices."""
        return "column_wise" if self.shapes[name].width >= self.model else "row_wise"

    def plan(
        self, chosen: Mapping[str, Placement], reasons: Mapping[str, str], budget: int
    ) -> TablePlan:
        """Return the plan of the chosen placements."""
        table_layout = layout(self.shapes, chosen, self.data, self.model)
        rows = []
        for stored in table_layout.arrays.values():
            tables = tuple(t for names in stored.members for t in names)
            rows.append(
                Row(
                    tables=tables,
                    placement=stored.placement,
                    stored=self._stored(stored),
                    sent=self._sent(stored, tables),
                    why=reasons[tables[0]] + self._padding(stored, tables),
                )
            )
        return TablePlan(layout=table_layout, shapes=self.shapes, rows=tuple(rows), budget=budget)

    def _stored(self, stored: Stored) -> int:
        """Return the bytes of an array with its optimizer state per device."""
        table = jax.ShapeDtypeStruct((stored.rows, stored.width), np.float32)
        # AdamW of full tables stores two moments and a gradient of the table's size.
        state: Any = [table] * 3 if self.rule is None else jax.eval_shape(self.rule.init, table)
        total = 0
        for x in jax.tree.leaves((table, state)):
            is_sharded = any(stored.spec(x.ndim))
            total += x.size * x.dtype.itemsize // (self.model if is_sharded else 1)
        return total

    def _padding(self, stored: Stored, tables: tuple[str, ...]) -> str:
        """Return a note on padding, or ""."""
        if stored.placement == "table_wise":
            return ""
        v, e = self.shapes[tables[0]]
        columns = f"; {e} columns stored as {stored.width}" if stored.width > e else ""
        return columns + (f"; {v:,} rows stored as {stored.rows:,}" if stored.rows > v else "")

    def _sent_alone(self, name: str, placement: Placement) -> int:
        """Return the bytes sent for one table with a placement."""
        shapes = {name: self.shapes[name]}
        (stored,) = layout(shapes, {name: placement}, self.data, self.model).arrays.values()
        return self._sent(stored, (name,))

    def _sent(self, stored: Stored, tables: tuple[str, ...]) -> int:
        """Return the bytes that a device sends per step, by the formulas at the top."""
        m = self.model
        d = self.data
        n = m * d
        u = max(self.local[t] for t in tables)
        unique = max(self.unique[t] for t in tables)
        row = stored.width * _FLOAT
        if self.rule is None:
            return round(2 * (n - 1) / n * stored.rows * row)
        if stored.placement == "replicated":
            return round(2 * (n - 1) / n * unique * row)
        over_data = 2 * (d - 1) / d * unique * row
        ids = 2 * (m - 1) * u * _INT  # local ids and their inverse
        if stored.placement == "column_wise":
            # Row-wise AdaGrad sums the squares of a row over the shards of columns.
            norm = 2 * (m - 1) / m * unique * _FLOAT * self.by_row
            return round(2 * (m - 1) / m * u * row + over_data / m + ids + norm)
        if stored.placement == "row_wise":
            return round(2 * (m - 1) * u * row + over_data + ids)
        slots = max(map(len, stored.members))
        return round(slots * (2 * (m - 1) * u * row + over_data + ids))


def _too_large(plan: TablePlan, devices: int | None) -> str:
    """Return the message for tables that exceed the budget; `devices` would suffice."""
    enough = (
        f"mesh.model={devices} would suffice"
        if devices
        else "no mesh.model would suffice with these placements"
    )
    return (
        f"the tables with their optimizer state need {size(plan.stored)} per device, more than the "
        f"{size(plan.budget)} of mesh.table_gib; mesh.model={plan.layout.model} now, {enough}; or "
        "lower the rows or the width of the largest table:\n" + "\n".join(plan.lines())
    )


def size(count: float) -> str:
    """Return bytes as text, e.g. 1.5 MiB."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} GiB"
