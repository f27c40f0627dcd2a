"""Embedding tables: lookup, bags, and gradients of gathered rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from ligr_jax.config import Feature, ModelConfig
from ligr_jax.data.unique_ids import UniqueIdMapper
from ligr_jax.nn.ligr import LiGR
from ligr_jax.tables.table import ROWS, Tables, is_table
from tests.batches import FEATURES, model_config, random_batch


def test_lookup_returns_rows_and_gradients_reach_only_them() -> None:
    ids = jnp.asarray([[0, 3, 3], [6, 0, 3]], jnp.int32)
    tables = Tables(ModelConfig(features={"item": Feature(rows=7, width=4)}))
    params = tables.init(jax.random.key(0), {"item": ids})["params"]
    rows = np.asarray(params["item"])
    assert rows.shape == (7, 4)
    assert rows.dtype == np.float32
    found = tables.apply({"params": params}, {"item": ids})["item"]
    np.testing.assert_array_equal(found, rows[np.asarray(ids)])

    def total(params: dict) -> jax.Array:
        return jnp.sum(tables.apply({"params": params}, {"item": ids})["item"])

    wanted = np.zeros((7, 4))
    wanted[[0, 3, 6]] = [[2], [3], [1]]
    np.testing.assert_array_equal(jax.grad(total)(params)["item"], wanted)


BAGS = np.array([[[3, 3, 5], [1, -1, -1]], [[-1, -1, -1], [-1, 4, 2]]], np.int32)


@pytest.mark.parametrize("combine", ["sum", "mean"])
def test_bag_counts_repeated_ids_and_is_zero_if_empty(combine: str) -> None:
    """Equal for full tables and for gathered rows of a batch in two parts, with a shared table."""
    model = ModelConfig(
        features={
            "tags": Feature(rows=9, width=4, bag=combine, bag_size=3, table="tag"),  # type: ignore[arg-type]
            "tag": Feature(rows=9, width=4),
        }
    )
    tables = Tables(model)
    batch = random_batch([[[2]], [[2]]], 2)._replace(
        ids={"tags": BAGS, "tag": np.array([[3, 8], [5, 0]], np.int32)}
    )
    params = tables.init(jax.random.key(0), batch.ids)["params"]
    assert {name: x.shape for name, x in params.items()} == {"tag": (9, 4)}
    rows = np.asarray(params["tag"])
    wanted = np.zeros((2, 2, 4), np.float32)
    for place in np.ndindex(2, 2):
        there = [rows[i] for i in BAGS[place] if i >= 0]
        if there:
            wanted[place] = np.sum(there, 0) / (len(there) if combine == "mean" else 1)
    found = tables.apply({"params": params}, batch.ids)
    np.testing.assert_allclose(found["tags"], wanted, atol=1e-6)
    for parts in (1, 2):
        named, lists = UniqueIdMapper(model, parts)(batch)
        own = rows[np.minimum(lists["tag"].local, 8)]
        listed = tables.apply({ROWS: {"tag": own}}, named.ids)
        np.testing.assert_allclose(listed["tags"], wanted, atol=1e-6)
        np.testing.assert_array_equal(listed["tag"], rows[batch.ids["tag"]])


NONE = -1
SHARED = ModelConfig(
    features={
        "item": Feature(rows=9, width=4, table="id"),
        "author": Feature(rows=9, width=4, table="id"),
        "seen": Feature(rows=9, width=4, table="id", bag="sum", bag_size=3),
        "tags": Feature(rows=9, width=4, table="id", bag="mean", bag_size=3),
    }
)


@pytest.mark.parametrize("ids", ["random", "all equal", "empty bags"])
@pytest.mark.parametrize("parts", [1, 2])
def test_gradients_of_gathered_rows_equal_those_of_the_shared_table(ids: str, parts: int) -> None:
    """Four features share one table; an id may occur in all of them, and repeatedly in a bag."""
    rng, tables = np.random.default_rng(0), Tables(SHARED)
    shapes = {"item": (2, 5), "author": (2, 5), "seen": (2, 5, 3), "tags": (2, 5, 3)}
    drawn = {n: rng.integers(0 if len(s) == 2 else NONE, 9, s) for n, s in shapes.items()}
    if ids == "all equal":
        drawn = {n: np.full_like(x, 7) for n, x in drawn.items()}
    if ids == "empty bags":
        drawn |= {n: np.full_like(drawn[n], NONE) for n in ("seen", "tags")}
    batch = random_batch([[[5]], [[5]]], 5)._replace(
        ids={n: x.astype(np.int32) for n, x in drawn.items()}
    )
    upstream = {n: rng.normal(size=(2, 5, 4)).astype(np.float32) for n in shapes}
    table = rng.normal(size=(9, 4)).astype(np.float32)

    def total(variables: dict, ids: dict) -> jax.Array:
        found = tables.apply(variables, ids)
        return sum(jnp.sum(found[n] * upstream[n]) for n in shapes)

    whole = jax.grad(lambda t: total({"params": {"id": t}}, batch.ids))(table)
    named, lists = UniqueIdMapper(SHARED, parts)(batch)
    own = lists["id"].local
    rows = table[np.minimum(own, 8)]
    parted = jax.grad(lambda r: total({ROWS: {"id": r}}, named.ids))(rows)
    merged = np.zeros((10, 4))
    np.add.at(merged, np.minimum(own, 9), parted)
    np.testing.assert_allclose(merged[:9], whole, atol=1e-5)
    assert (merged[9] == 0).all()


def test_exactly_the_tables_of_features_are_recognized_as_tables() -> None:
    model = LiGR(model_config(unroll="no"))
    params = jax.eval_shape(model.init, jax.random.key(0), random_batch([[[1]]], 2))["params"]
    paths = jax.tree_util.tree_leaves_with_path(params)
    found = {path[-1].key: leaf.shape[0] for path, leaf in paths if is_table(path)}
    assert found == {name: f.rows for name, f in FEATURES.items() if f.has_table}
    assert len(paths) == len(traverse_util.flatten_dict(params))
