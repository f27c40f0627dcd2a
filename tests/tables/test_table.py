"""Laws of embedding tables."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from ligr_jax.nn.ligr import LiGR
from ligr_jax.tables.table import Table, is_table
from tests.batches import FEATURES, model_config, random_batch


def test_a_table_gives_its_rows_and_trains_those_alone() -> None:
    ids = jnp.asarray([[0, 3, 3], [6, 0, 3]], jnp.int32)
    table = Table(rows=7, width=4)
    params = table.init(jax.random.key(0), ids)["params"]
    rows = np.asarray(params["table"])
    assert rows.shape == (7, 4)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(table.apply({"params": params}, ids), rows[np.asarray(ids)])

    gradient = jax.grad(lambda p: jnp.sum(jnp.asarray(table.apply({"params": p}, ids))))(params)
    wanted = np.zeros((7, 4))
    wanted[[0, 3, 6]] = [[2], [3], [1]]
    np.testing.assert_array_equal(gradient["table"], wanted)


def test_exactly_the_tables_of_features_are_recognized_as_tables() -> None:
    model = LiGR(model_config(unroll="no"))
    params = jax.eval_shape(model.init, jax.random.key(0), random_batch([[[1]]], 2))["params"]
    paths = jax.tree_util.tree_leaves_with_path(params)
    found = {path[-2].key: leaf.shape[0] for path, leaf in paths if is_table(path)}
    assert found == {name: f.rows for name, f in FEATURES.items() if f.has_table}
    assert len(paths) == len(traverse_util.flatten_dict(params))
