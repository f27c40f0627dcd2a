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

from ligr_jax.data.distinct import distinct
from ligr_jax.tables.sparse import gather, rowwise_adagrad, update_rows
from peers.attention_jax import hello
from peers.lookups import WIDTH, gradient, lookups
from peers.workers import serve

RATE = 0.01


def main() -> None:
    calls: dict[str, Callable[[], Any]] = {}

    def prepare(kind: str, law: str, rows: int, count: int) -> None:
        makers = {"rowwise": rowwise, "dense": dense, "host": host}
        calls.pop(kind, None)  # its table, before another is made
        calls[kind] = makers[kind](lookups(law, rows, count), rows, gradient(count))

    def sample(kind: str) -> float:
        began = time.perf_counter()
        jax.block_until_ready(calls[kind]())
        return time.perf_counter() - began

    serve({"hello": hello, "prepare": prepare, "sample": sample})


def rowwise(batches: list[np.ndarray], rows: int, upstream: np.ndarray) -> Callable[[], Any]:
    rule = rowwise_adagrad()

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(table: jax.Array, state: Any, ids: jax.Array, place: jax.Array, g: jax.Array) -> Any:
        looked_up, pull = jax.vjp(lambda r: r[place], gather(table, ids))
        table, state = update_rows(rule, table, state, ids, *pull(g), RATE, 0.0, jnp.int32(0))
        return table, state, looked_up.sum()

    table = jax.jit(lambda: jnp.full((rows, WIDTH), 0.1))()
    kept = [table, rule.init(table)]
    del table
    turn = itertools.cycle(jax.device_put([distinct(ids, rows) for ids in batches]))
    g = jax.device_put(upstream)

    def call() -> Any:
        *kept[:], out = step(*kept, *next(turn), g)
        return kept, out

    return call


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
    """What the input pipeline does for `rowwise`, in a thread of its own, beside the step."""
    turn = itertools.cycle(batches)
    return lambda: distinct(next(turn), rows)


if __name__ == "__main__":
    main()
