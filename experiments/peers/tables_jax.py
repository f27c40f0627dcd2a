"""The library's side of the race of tables."""

import itertools
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ligr_jax.config import Feature, MeshConfig, ModelConfig
from ligr_jax.data.unique_ids import UniqueIds, find_unique_ids
from ligr_jax.parallel.traffic import collectives
from ligr_jax.tables.exchange import (
    StoredTables,
    TableGrads,
    gather_rows,
    reduce_row_grads,
    update_tables,
)
from ligr_jax.tables.planner import plan_tables
from ligr_jax.tables.sparse import UpdateScalars, rowwise_adagrad
from ligr_jax.tables.table import embed
from peers.attention_jax import hello
from peers.cases import Case
from peers.lookups import WIDTH, gradient, lookups
from peers.step_device import steps
from peers.workers import serve

RATE = 0.01


def main() -> None:
    calls: dict[str, Callable[[], Any]] = {}

    def prepare(kind: str, law: str, rows: int, count: int, **mesh: Any) -> dict[str, int]:
        """Make a step; return the bytes that a device sends in it, as planned and as compiled."""
        calls.pop(kind, None)  # frees the table before another one is made
        if kind == "rowwise":
            calls[kind], sent = rowwise(lookups(law, rows, count), rows, gradient(count), **mesh)
            return sent
        calls[kind] = {"dense": dense, "host": host}[kind](
            lookups(law, rows, count), rows, gradient(count)
        )
        return {}

    def prepare_step(
        case: dict[str, Any], layers: dict[str, Any], rows: int, mesh: dict[str, Any]
    ) -> None:
        """Make a whole training step with tables of `rows` rows."""
        calls.clear()  # frees the tables of other steps
        placed = MeshConfig(**mesh | {"placement": (mesh["placement"],)})
        calls["step"] = steps(Case(**case), layers, rows, placed)[0]

    def sample(kind: str, steps: int = 1) -> float:
        """Return the seconds of one of several consecutive steps."""
        began = time.perf_counter()
        for _ in range(steps):
            result = calls[kind]()
        jax.block_until_ready(result)
        return (time.perf_counter() - began) / steps

    serve(hello=hello, prepare=prepare, prepare_step=prepare_step, sample=sample)


def rowwise(
    batches: list[np.ndarray],
    rows: int,
    upstream: np.ndarray,
    data: int = 1,
    model: int = 1,
    placement: str = "replicated",
) -> tuple[Callable[[], Any], dict[str, int]]:
    """Return the library's step: rows are gathered, gradients merged, rows updated in place."""
    rule, n = rowwise_adagrad(), data * model
    config = ModelConfig(features={"id": Feature(rows=rows, width=WIDTH)})
    ids = {"id": upstream.shape[0] // n}
    plan = plan_tables(config, ids, data, model, rule, 2**50, (placement,))
    lay = plan.layout
    mesh = Mesh(np.array(jax.devices()[:n]).reshape(data, model), ("data", "model"))
    parts, whole = NamedSharding(mesh, P(("data", "model"))), NamedSharding(mesh, P())

    def step(tables: Any, states: Any, unique_ids: Any, index: jax.Array, g: jax.Array) -> Any:
        rows = gather_rows(lay, tables, {t: d.local for t, d in unique_ids.items()})
        looked_up, pull = jax.vjp(lambda rows: embed(rows, index), rows["id"])
        # As in training, rows are updated only after the loss has read them.
        total = looked_up.sum()
        grads = reduce_row_grads(lay, {"id": pull(g)[0]}, unique_ids)
        stored = update_tables(
            lay,
            rule,
            StoredTables(arrays=tables, states=states),
            TableGrads(unique_ids=unique_ids, by_array=grads),
            UpdateScalars(rate=jnp.float32(RATE), step=jnp.int32(0)),
            jnp.isfinite(total),
        )
        return *stored, total

    def fresh() -> Any:
        tables = lay.pack({"id": jnp.full((rows, WIDTH), 0.1)})
        return tables, {name: rule.init(x) for name, x in tables.items()}

    where = {t: (NamedSharding(mesh, a.spec(2)), a.spec(1)) for t, a in lay.arrays.items()}
    shardings = (
        {t: s for t, (s, _) in where.items()},
        {t: NamedSharding(mesh, s) for t, (_, s) in where.items()},
    )
    kept = [*jax.jit(fresh, out_shardings=shardings)()]
    placed = []
    for batch in batches:
        lists, index = find_unique_ids(batch.reshape(n, -1), rows)
        unique_ids = {"id": jax.device_put(lists, UniqueIds(parts, whole, parts))}
        placed.append((unique_ids, jax.device_put(index, parts)))
    g = jax.device_put(upstream.reshape(n, -1, WIDTH), parts)
    with jax.set_mesh(mesh):
        compiled = jax.jit(step, donate_argnums=(0, 1)).lower(*kept, *placed[0], g).compile()
    turn = itertools.cycle(placed)

    def call() -> Any:
        *kept[:], out = compiled(*kept, *next(turn), g)
        return kept, out

    hlo = compiled.as_text()
    assert hlo is not None
    sent = sum(c.sent for c in collectives(hlo))
    return call, {"planned": plan.sent, "sent": sent}


def dense(batches: list[np.ndarray], rows: int, upstream: np.ndarray) -> Callable[[], Any]:
    tx = optax.adam(RATE)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(table: jax.Array, state: Any, ids: jax.Array, g: jax.Array) -> Any:
        looked_up, pull = jax.vjp(lambda t: t[ids], table)
        updates, state = tx.update(*pull(g), state)
        return optax.apply_updates(table, updates), state, looked_up.sum()

    table = jax.jit(lambda: jnp.full((rows, WIDTH), 0.1))()
    kept = [table, tx.init(table)]
    del table
    turn = itertools.cycle(jax.device_put([ids.astype(np.int32) for ids in batches]))
    g = jax.device_put(upstream)

    def call() -> Any:
        *kept[:], out = step(*kept, next(turn), g)
        return kept, out

    return call


def host(batches: list[np.ndarray], rows: int, _: np.ndarray) -> Callable[[], Any]:
    """Return the work of the input pipeline for `rowwise`, done in a thread during the step."""
    turn = itertools.cycle(batches)
    return lambda: find_unique_ids(next(turn)[None], rows)


if __name__ == "__main__":
    main()
