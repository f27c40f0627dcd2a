"""Communication of tables: planned bytes are the bytes sent; all placements give equal numbers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ligr_jax.config import Feature, ModelConfig
from ligr_jax.data.unique_ids import UniqueIds, find_unique_ids
from ligr_jax.parallel.traffic import collectives
from ligr_jax.tables.exchange import (
    StoredTables,
    TableGrads,
    gather_rows,
    reduce_row_grads,
    sync_unique_ids,
    update_tables,
)
from ligr_jax.tables.planner import TablePlan, plan_tables
from ligr_jax.tables.sparse import (
    SPARSE_OPTIMIZERS,
    SparseOptimizer,
    UpdateScalars,
    rowwise_adagrad,
)

# One table is larger than the ids of a batch; its width does not divide by the devices.
MODEL = ModelConfig(
    features={
        "large": Feature(rows=3_003, width=10),
        "small": Feature(rows=17, width=10),
        "other": Feature(rows=130, width=10),
    }
)
SHAPES = MODEL.tables
IDS = 250  # ids per device and table
RULE = rowwise_adagrad()
CASES = [(4, 2), (2, 4), (1, 8)]
PLACEMENTS = ["replicated", "column_wise", "row_wise", "table_wise"]


def planned(
    data: int, model: int, placement: str, rule: SparseOptimizer = RULE
) -> tuple[TablePlan, Mesh]:
    mesh = Mesh(np.array(jax.devices()[: data * model]).reshape(data, model), ("data", "model"))
    ids = dict.fromkeys(SHAPES, IDS)
    return plan_tables(MODEL, ids, data, model, rule, 2**40, (placement,)), mesh


def listed(n: int) -> tuple[dict[str, UniqueIds], dict[str, np.ndarray]]:
    """Unique ids of random ids for n devices, and the index of each id, [n, IDS]."""
    rng = np.random.default_rng(0)
    pairs = {
        t: find_unique_ids(rng.integers(0, s.rows, (n, IDS)), s.rows) for t, s in SHAPES.items()
    }
    return {t: d for t, (d, _) in pairs.items()}, {t: p for t, (_, p) in pairs.items()}


def steps(plan: TablePlan, rule: SparseOptimizer = RULE) -> Callable[..., Any]:
    """A step: gathered rows, and tables and state after an update with given gradients."""

    def step(arrays: Any, states: Any, lists: Any, gradients: Any) -> Any:
        lists = sync_unique_ids(lists, SHAPES)
        rows = gather_rows(plan.layout, arrays, {t: d.local for t, d in lists.items()})
        gradients = {t: g * (1 + 0 * rows[t]) for t, g in gradients.items()}  # after the look-up
        updated = update_tables(
            plan.layout,
            rule,
            StoredTables(arrays=arrays, states=states),
            TableGrads(lists, reduce_row_grads(plan.layout, gradients, lists)),
            UpdateScalars(rate=jnp.float32(1), step=jnp.int32(0), decay=0.1),
            jnp.bool_(True),
        )
        return rows, updated

    return step


def arguments(plan: TablePlan, mesh: Mesh, rule: SparseOptimizer = RULE) -> tuple[Any, ...]:
    """Arrays, states, unique ids and gradients of their rows, on the mesh."""
    n, rng = mesh.size, np.random.default_rng(1)
    lists, _ = listed(n)
    tables = {t: rng.normal(size=(s.rows, s.width)).astype(np.float32) for t, s in SHAPES.items()}
    arrays = plan.layout.pack(tables)
    states = {name: rule.init(x) for name, x in arrays.items()}
    gradients = {}
    for t, d in lists.items():
        g = rng.normal(size=(*d.local.shape, SHAPES[t].width)).astype(np.float32)
        gradients[t] = np.where((d.local < SHAPES[t].rows)[..., None], g, 0)
    parts, whole = (NamedSharding(mesh, s) for s in (P(("data", "model")), P()))

    def stored(tree: Any) -> Any:
        return {
            name: jax.device_put(x, NamedSharding(mesh, plan.layout.arrays[name].spec(x.ndim)))
            for name, x in tree.items()
        }

    places = {t: jax.device_put(d, UniqueIds(parts, whole, parts)) for t, d in lists.items()}
    return stored(arrays), stored(states), places, jax.device_put(gradients, parts)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize(
    ("shape", "name"), [*((shape, "rowwise_adagrad") for shape in CASES), ((2, 4), "adagrad")]
)
def test_plan_predicts_the_bytes_sent_exactly(
    shape: tuple[int, int], placement: str, name: str
) -> None:
    rule = SPARSE_OPTIMIZERS[name]()
    plan, mesh = planned(*shape, placement, rule)
    with jax.set_mesh(mesh):
        given = arguments(plan, mesh, rule)
        compiled = jax.jit(steps(plan, rule)).lower(*given).compile()
    assert sum(c.sent for c in collectives(compiled.as_text())) == plan.sent > 0


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize(
    ("shape", "complete"), [*((shape, True) for shape in CASES), ((2, 4), False)]
)
def test_rows_and_gradient_sums_are_equal_for_all_placements(
    shape: tuple[int, int], placement: str, complete: bool
) -> None:
    """Compared with NumPy sums; also if only local ids are known, as with several processes."""
    plan, mesh = planned(*shape, placement)
    arrays, states, lists, gradients = arguments(plan, mesh)
    tables = jax.device_get(plan.layout.unpack(jax.device_get(arrays)))
    if not complete:
        lists = {t: UniqueIds(d.local, None, None) for t, d in lists.items()}
    with jax.set_mesh(mesh):
        rows, (moved, kept) = jax.jit(steps(plan))(arrays, states, lists, gradients)
    moved, kept = (plan.layout.unpack(jax.device_get(x)) for x in (moved, kept))
    for t, (v, e) in SHAPES.items():
        own, g = np.asarray(lists[t].local), np.asarray(gradients[t], np.float64)
        there = own < v
        np.testing.assert_array_equal(np.asarray(rows[t])[there], tables[t][own[there]])
        total = np.zeros((v, e))
        np.add.at(total, own[there], g[there])
        square = (total**2).mean(1)
        touched = square > 0
        move = total / (np.sqrt(square)[:, None] + 1e-8) + 0.1 * tables[t]
        wanted = np.where(touched[:, None], tables[t] - move, tables[t])
        np.testing.assert_allclose(moved[t], wanted, rtol=2e-5, atol=2e-5)
        np.testing.assert_array_equal(np.asarray(moved[t])[~touched], tables[t][~touched])
        np.testing.assert_allclose(kept[t], square, rtol=1e-4, atol=1e-6)
