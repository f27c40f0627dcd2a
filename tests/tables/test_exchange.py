"""What tables send, and that placements give the same rows and the same sums."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ligr_jax.config import Feature, ModelConfig
from ligr_jax.data.distinct import Distinct, distinct
from ligr_jax.parallel.traffic import collectives
from ligr_jax.tables.exchange import agree, look_up, merge, update
from ligr_jax.tables.plan import TablePlan, plan_tables
from ligr_jax.tables.sparse import RULES, RowRule, rowwise_adagrad

# One of them larger than what a batch looks up, in a width that does not divide by the devices.
MODEL = ModelConfig(
    features={
        "large": Feature(rows=3_003, width=10),
        "small": Feature(rows=17, width=10),
        "other": Feature(rows=130, width=10),
    }
)
SHAPES = MODEL.tables
IDS = 250  # of a device, in each table
RULE = rowwise_adagrad()
CASES = [(4, 2), (2, 4), (1, 8)]
PLACEMENTS = ["replicated", "column", "row", "table"]


def planned(data: int, model: int, placement: str, rule: RowRule = RULE) -> tuple[TablePlan, Mesh]:
    mesh = Mesh(np.array(jax.devices()[: data * model]).reshape(data, model), ("data", "model"))
    ids = dict.fromkeys(SHAPES, IDS)
    return plan_tables(MODEL, ids, data, model, rule, 2**40, (placement,)), mesh


def listed(n: int) -> tuple[dict[str, Distinct], dict[str, np.ndarray]]:
    """Lists of random ids for n devices, and the ids [n, IDS] as places in them."""
    rng = np.random.default_rng(0)
    pairs = {t: distinct(rng.integers(0, s.rows, (n, IDS)), s.rows) for t, s in SHAPES.items()}
    return {t: d for t, (d, _) in pairs.items()}, {t: p for t, (_, p) in pairs.items()}


def steps(plan: TablePlan, rule: RowRule = RULE) -> Callable[..., Any]:
    """Rows looked up, their gradients (given), tables and state after an update."""

    def step(arrays: Any, states: Any, lists: Any, gradients: Any) -> Any:
        lists = agree(lists, SHAPES)
        rows = look_up(plan.layout, arrays, {t: d.own for t, d in lists.items()})
        gradients = {t: g * (1 + 0 * rows[t]) for t, g in gradients.items()}  # after the look-up
        merged = merge(plan.layout, gradients, lists)
        one = jnp.float32(1)
        moved = update(
            plan.layout, rule, arrays, states, lists, merged, one, 0.1, jnp.int32(0), one > 0
        )
        return rows, moved

    return step


def arguments(plan: TablePlan, mesh: Mesh, rule: RowRule = RULE) -> tuple[Any, ...]:
    """Arrays, states, lists, and gradients of the rows listed, where they live."""
    n, rng = mesh.size, np.random.default_rng(1)
    lists, _ = listed(n)
    tables = {t: rng.normal(size=(s.rows, s.width)).astype(np.float32) for t, s in SHAPES.items()}
    arrays = plan.layout.pack(tables)
    states = {name: rule.init(x) for name, x in arrays.items()}
    gradients = {}
    for t, d in lists.items():
        g = rng.normal(size=(*d.own.shape, SHAPES[t].width)).astype(np.float32)
        gradients[t] = np.where((d.own < SHAPES[t].rows)[..., None], g, 0)
    parts, whole = (NamedSharding(mesh, s) for s in (P(("data", "model")), P()))

    def stored(tree: Any) -> Any:
        return {
            name: jax.device_put(x, NamedSharding(mesh, plan.layout.arrays[name].spec(x.ndim)))
            for name, x in tree.items()
        }

    places = {t: jax.device_put(d, Distinct(parts, whole, parts)) for t, d in lists.items()}
    return stored(arrays), stored(states), places, jax.device_put(gradients, parts)


@pytest.mark.parametrize("shape", CASES)
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("name", ["rowwise_adagrad", "adagrad"])
def test_a_plan_says_to_the_byte_what_its_tables_send(
    shape: tuple[int, int], placement: str, name: str
) -> None:
    rule = RULES[name]()
    plan, mesh = planned(*shape, placement, rule)
    with jax.set_mesh(mesh):
        given = arguments(plan, mesh, rule)
        compiled = jax.jit(steps(plan, rule)).lower(*given).compile()
    assert sum(c.sent for c in collectives(compiled.as_text())) == plan.sent > 0


@pytest.mark.parametrize("shape", CASES)
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("told", [True, False], ids=["lists merged", "lists of each device"])
def test_rows_are_brought_and_gradients_summed_wherever_tables_lie(
    shape: tuple[int, int], placement: str, told: bool
) -> None:
    """Against sums written out; also where devices know their own lists only, as processes do."""
    plan, mesh = planned(*shape, placement)
    arrays, states, lists, gradients = arguments(plan, mesh)
    tables = jax.device_get(plan.layout.unpack(jax.device_get(arrays)))
    if not told:
        lists = {t: Distinct(d.own, None, None) for t, d in lists.items()}
    with jax.set_mesh(mesh):
        rows, (moved, kept) = jax.jit(steps(plan))(arrays, states, lists, gradients)
    moved, kept = (plan.layout.unpack(jax.device_get(x)) for x in (moved, kept))
    for t, (v, e) in SHAPES.items():
        own, g = np.asarray(lists[t].own), np.asarray(gradients[t], np.float64)
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
