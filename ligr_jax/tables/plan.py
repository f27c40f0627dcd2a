"""Which table goes where: a placement for each by what it stores and sends, and the plan in words.

Bytes are those of one device: `stored` with the optimizer's state, `sent` in one training step. A
device's part of a batch has u distinct rows of a table, the whole batch U (upper bounds: shapes are
static); n = data x model devices, m = model, d = data:

    replicated   2 (n-1)/n U E                       sum of gradients over all devices
    column       2 (m-1)/m u E + 2 (d-1)/d U E/m     rows there, gradients back, sum over `data`
    row          2 (m-1) u E   + 2 (d-1)/d U E
    table        2 (m-1) S u E + 2 (d-1)/d S U E     S tables a device, all of one width together

and the ids. So columns send least unless a table is small; replicated needs the fewest messages.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import jax
import numpy as np

from ligr_jax.config import ConfigError, ModelConfig, TableShape
from ligr_jax.tables.layout import Layout, Placement, Stored, layout
from ligr_jax.tables.sparse import RowRule

_FLOAT = _INT = 4  # bytes
_SMALL = 2**20  # bytes sent that are not worth more messages


@dataclass(frozen=True)
class Row:
    """A stored array of the plan."""

    tables: tuple[str, ...]
    placement: Placement
    stored: int
    sent: int
    why: str


@dataclass(frozen=True)
class TablePlan:
    """layout: where the tables lie; rows: why, and what it costs a device."""

    layout: Layout
    shapes: Mapping[str, TableShape]
    rows: tuple[Row, ...]
    budget: int

    @property
    def stored(self) -> int:
        return sum(row.stored for row in self.rows)

    @property
    def sent(self) -> int:
        return sum(row.sent for row in self.rows)

    def lines(self) -> list[str]:
        """The plan as aligned text."""
        head = ("table", "rows", "width", "placement", "a device", "sent a step", "why")
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
            f"{size(self.budget)} on each, {size(self.sent)} sent by each in a step",
            *("  " + "  ".join(c.ljust(w) for c, w in zip(r, widths)).rstrip() for r in cells),
        ]


def plan_tables(
    model: ModelConfig,
    ids: Mapping[str, int],
    data: int,
    model_devices: int,
    rule: RowRule | None,
    budget: int,
    asked: Sequence[str] = ("auto",),
) -> TablePlan:
    """The placement of every table, checked against a device's memory. Nothing is allocated.

    Args:
        ids: looked up in each table by one device in a step.
        rule: the tables' optimizer; None where they train as dense weights.
        budget: bytes of a device for tables and their optimizer's state.
        asked: `mesh.placement`.

    Raises:
        ConfigError: an unknown table or a placement that cannot be, or tables beyond the budget.
    """
    shapes = model.tables
    told = _asked(shapes, asked)
    if rule is None and model_devices > 1:
        wrong = sorted(n for n, p in told.items() if p not in ("auto", "replicated"))
        if wrong:
            raise ConfigError(
                f"mesh.placement: {', '.join(wrong)} cannot be split, optim.table_optimizer=adamw "
                "trains whole tables; choose another optimizer, e.g. rowwise_adagrad"
            )
        told = dict.fromkeys(told, "replicated")
    plan = _decide(_Costs(shapes, ids, data, model_devices, rule), told, budget)
    if plan.stored > budget:
        larger = (_Costs(shapes, ids, data, 2**k, rule) for k in range(1, 17))
        fits = (c.model for c in larger if _decide(c, told, budget).stored <= budget)
        raise ConfigError(_too_large(plan, next((m for m in fits if m > model_devices), None)))
    return plan


def _decide(costs: "_Costs", told: Mapping[str, str], budget: int) -> TablePlan:
    """What sends least, and where that does not fit, what splits the largest tables."""
    chosen: dict[str, Placement] = {}
    reasons: dict[str, str] = {}
    for name, word in told.items():
        if costs.model == 1:
            chosen[name], reasons[name] = "replicated", "mesh.model=1"
        elif word != "auto":
            chosen[name], reasons[name] = cast(Placement, word), "as told"
        else:
            chosen[name], reasons[name] = costs.cheapest(name)
    plan = costs.plan(chosen, reasons, budget)
    for name in sorted(told, key=lambda n: -math.prod(costs.shapes[n])):
        if plan.stored <= budget or costs.model == 1:
            break
        if told[name] == "auto" and chosen[name] == "replicated":
            chosen[name], reasons[name] = costs.split(name), "to fit in memory"
            plan = costs.plan(chosen, reasons, budget)
    return plan


def _asked(shapes: Mapping[str, TableShape], asked: Sequence[str]) -> dict[str, str]:
    told = dict.fromkeys(shapes, "auto")
    for entry in sorted(asked, key=lambda e: ":" in e):
        name, colon, word = entry.rpartition(":")
        if colon and name not in shapes:
            raise ConfigError(f"mesh.placement={entry}: no table {name}; there are {list(shapes)}")
        told |= {name: word} if colon else dict.fromkeys(shapes, word)
    return told


class _Costs:
    """What a placement stores and sends."""

    def __init__(
        self,
        shapes: Mapping[str, TableShape],
        ids: Mapping[str, int],
        data: int,
        model: int,
        rule: RowRule | None,
    ) -> None:
        self.shapes, self.data, self.model, self.rule = shapes, data, model, rule
        kept = jax.eval_shape(rule.init, jax.ShapeDtypeStruct((1, 1), np.float32)) if rule else ()
        self.by_row = any(x.ndim == 1 for x in jax.tree.leaves(kept))
        self.own = {t: min(v, ids[t]) for t, (v, _) in shapes.items()}
        self.whole = {t: min(v, ids[t] * data * model) for t, (v, _) in shapes.items()}

    def cheapest(self, name: str) -> tuple[Placement, str]:
        whole, split = self._sent_alone(name, "replicated"), self.split(name)
        parts = self._sent_alone(name, split)
        if whole <= _SMALL:
            return "replicated", f"small: sends {size(whole)}"
        if parts * 2 > whole:
            return "replicated", f"{split} would send {size(parts)}"
        return split, f"replicated would send {size(whole)}"

    def split(self, name: str) -> Placement:
        """By columns, unless devices would be left without any."""
        return "column" if self.shapes[name].width >= self.model else "row"

    def plan(
        self, chosen: Mapping[str, Placement], reasons: Mapping[str, str], budget: int
    ) -> TablePlan:
        made = layout(self.shapes, chosen, self.data, self.model)
        rows = []
        for stored in made.arrays.values():
            tables = tuple(t for held in stored.members for t in held)
            why = reasons[tables[0]] + self._padding(stored, tables)
            sent = self._sent(stored, tables)
            rows.append(Row(tables, stored.placement, self._stored(stored), sent, why))
        return TablePlan(made, self.shapes, tuple(rows), budget)

    def _stored(self, stored: Stored) -> int:
        table = jax.ShapeDtypeStruct((stored.rows, stored.width), np.float32)
        # Adam of whole tables has two moments and a gradient of their size.
        state: Any = [table] * 3 if self.rule is None else jax.eval_shape(self.rule.init, table)
        total = 0
        for x in jax.tree.leaves((table, state)):
            split = any(stored.spec(x.ndim))
            total += x.size * x.dtype.itemsize // (self.model if split else 1)
        return total

    def _padding(self, stored: Stored, tables: tuple[str, ...]) -> str:
        if stored.placement == "table":
            return ""
        v, e = self.shapes[tables[0]]
        columns = f"; {e} columns stored as {stored.width}" if stored.width > e else ""
        return columns + (f"; {v:,} rows stored as {stored.rows:,}" if stored.rows > v else "")

    def _sent_alone(self, name: str, placement: Placement) -> int:
        shapes = {name: self.shapes[name]}
        (stored,) = layout(shapes, {name: placement}, self.data, self.model).arrays.values()
        return self._sent(stored, (name,))

    def _sent(self, stored: Stored, tables: tuple[str, ...]) -> int:
        m, d = self.model, self.data
        n = m * d
        own, whole = max(self.own[t] for t in tables), max(self.whole[t] for t in tables)
        row = stored.width * _FLOAT
        if self.rule is None:
            return round(2 * (n - 1) / n * stored.rows * row)
        if stored.placement == "replicated":
            return round(2 * (n - 1) / n * whole * row)
        over_data = 2 * (d - 1) / d * whole * row
        ids = 2 * (m - 1) * own * _INT  # rows to look up, and their places
        if stored.placement == "column":
            # What row-wise AdaGrad sums over columns, to keep one number a row.
            norm = 2 * (m - 1) / m * whole * _FLOAT * self.by_row
            return round(2 * (m - 1) / m * own * row + over_data / m + ids + norm)
        if stored.placement == "row":
            return round(2 * (m - 1) * own * row + over_data + ids)
        slots = max(map(len, stored.members))
        return round(slots * (2 * (m - 1) * own * row + over_data + ids))


def _too_large(plan: TablePlan, devices: int | None) -> str:
    enough = f"mesh.model={devices} would do" if devices else "no mesh.model would do as placed"
    return (
        f"the tables need {size(plan.stored)} a device with their optimizer's state, and it has "
        f"{size(plan.budget)} for them (mesh.table_gib); now mesh.model={plan.layout.model}, "
        f"{enough}; or lower the rows or the width of the largest:\n" + "\n".join(plan.lines())
    )


def size(count: float) -> str:
    """Bytes in words, e.g. 1.5 MiB."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} GiB"
