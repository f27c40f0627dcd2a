"""Sparse optimizers: equal to the dense optimizer on rows looked up, no change elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ligr_jax.data.unique_ids import UniqueIdMapper
from ligr_jax.tables.sparse import (
    SPARSE_OPTIMIZERS,
    RowGrads,
    UpdateScalars,
    take_rows,
    update_rows,
)
from tests.batches import FEATURES, model_config, random_batch

V, E, RATE, DECAY = 40, 6, 0.1, 0.01
IDS = {
    "repeated": [3, 7, 3, 3, 0, 39, 7],
    "all equal": [5, 5, 5, 5],
    "one": [12],
    "every row": list(range(V)),
}


def dense_rule(name: str, table: np.ndarray, gradients: list[np.ndarray]) -> np.ndarray:
    """Table after steps of dense gradients in NumPy; rows with zero gradient do not change."""
    table = table.astype(np.float64)
    total, m, v = np.zeros((3, V, E))
    for t, g in enumerate(gradients, 1):
        for r in np.flatnonzero((g != 0).any(1)):
            total[r] += (g[r] ** 2).mean() if name == "rowwise_adagrad" else g[r] ** 2
            m[r], v[r] = 0.9 * m[r] + 0.1 * g[r], 0.999 * v[r] + 0.001 * g[r] ** 2
            move = {
                "sgd": g[r],
                "adagrad": g[r] / (np.sqrt(total[r]) + 1e-8),
                "rowwise_adagrad": g[r] / (np.sqrt(total[r]) + 1e-8),
                "lazy_adam": m[r] / (1 - 0.9**t) / (np.sqrt(v[r] / (1 - 0.999**t)) + 1e-8),
            }[name]
            table[r] -= RATE * move + DECAY * RATE * table[r]
    return table


def gradient(table: jax.Array, ids: np.ndarray, upstream: np.ndarray) -> jax.Array:
    """Gradient of a loss whose gradient by the rows looked up is `upstream`."""
    return jax.grad(lambda t: (t[ids] * upstream).sum())(table)


@pytest.mark.parametrize("ids", IDS.values(), ids=list(IDS))
@pytest.mark.parametrize("name", SPARSE_OPTIMIZERS)
def test_rows_looked_up_equal_the_dense_optimizer_and_others_do_not_change(
    name: str, ids: list[int]
) -> None:
    rng = np.random.default_rng(0)
    rule, start = SPARSE_OPTIMIZERS[name](), rng.normal(size=(V, E)).astype(np.float32)
    table, state = jnp.asarray(start), SPARSE_OPTIMIZERS[name]().init(jnp.asarray(start))
    gradients = []
    for step in range(3):
        upstream = rng.normal(size=(len(ids), E)).astype(np.float32)
        unique, index = np.unique(ids, return_inverse=True)
        unique = np.concatenate([unique, [V, V + 1]]).astype(np.int32)
        rows = take_rows(table, unique)
        gradients.append(np.asarray(gradient(table, np.array(ids), upstream)))
        table, state = jax.jit(update_rows, static_argnums=0)(
            rule,
            table,
            state,
            RowGrads(ids=unique, grad_UE=gradient(rows, index, upstream)),
            UpdateScalars(rate=RATE, step=jnp.int32(step), decay=DECAY),
        )
    np.testing.assert_allclose(table, dense_rule(name, start, gradients), atol=2e-6)
    others = np.setdiff1d(np.arange(V), ids)
    np.testing.assert_array_equal(np.asarray(table)[others], start[others])
    for x in jax.tree.leaves(state):
        assert (np.asarray(x)[others] == 0).all()


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_mapped_ids_and_unique_ids_give_the_ids_of_the_batch(parts: int) -> None:
    batch = random_batch([[[2, 3, 1], [4]], [[1, 1]], [], [[5]]], 11)
    mapped, unique_ids = UniqueIdMapper(model_config(), parts)(batch)
    for table, (local, unique, inverse) in unique_ids.items():
        v = FEATURES[table].rows
        ids, index = (x.ids[table].reshape(parts, -1) for x in (batch, mapped))
        np.testing.assert_array_equal(np.take_along_axis(local, index, 1), ids)
        assert local.shape == (parts, min(v, ids.shape[1]))
        assert len(unique) == min(v, ids.size)
        assert (np.diff(unique) > 0).all()
        assert (np.diff(local) > 0).all()
        assert {*unique[unique < v]} == {*np.ravel(ids)}
        np.testing.assert_array_equal(unique[inverse[local < v]], local[local < v])
        assert (inverse[local >= v] == len(unique)).all()
