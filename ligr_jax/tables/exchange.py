"""Communication of a training step with the tables: rows, gradients, and the update in place.

`gather_rows` runs before the model, `reduce_row_grads` and `update_tables` after it. They handle
all tables together, whatever their placement (`placements` says what each placement sends). They
run under the mesh of `jax.set_mesh`; a layout of one device needs no mesh.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from ligr_jax.data.unique_ids import UniqueIds
from ligr_jax.tables.layout import PARTS, Layout
from ligr_jax.tables.placements import EXCHANGES, Arrays, Exchange, Lists
from ligr_jax.tables.sparse import (
    RowGrads,
    SparseOptimizer,
    State,
    UpdateScalars,
    update_rows,
)

EVERYWHERE = P()


class StoredTables(NamedTuple):
    """Tables and their optimizer state, by stored array.

    Attributes:
        arrays: arrays of V rows.
        states: optimizer state of the rows, arrays with V rows.
    """

    arrays: Arrays
    states: Mapping[str, State]


class TableGrads(NamedTuple):
    """Gradients of the rows that a batch looks up.

    Attributes:
        unique_ids: unique ids by table.
        by_array: result of `reduce_row_grads`.
    """

    unique_ids: Lists
    by_array: Arrays


def gather_rows(layout: Layout, arrays: Arrays, local: Arrays) -> dict[str, jax.Array]:
    """Gather the rows that each device looks up.

    Args:
        layout: layout of the tables.
        arrays: stored arrays of the tables.
        local: int32 [n, u] by table, unique ids of each device's part of the batch (`UniqueIds`).

    Returns:
        Rows float32 [n, u, E] by table; each device has those of its part.
    """

    def on_device(arrays: Arrays, local: Arrays) -> dict[str, jax.Array]:
        ids = {t: x[0] for t, x in local.items()}
        rows: dict[str, jax.Array] = {}
        for name, exchange in _exchanges(layout):
            rows |= exchange.gather_rows(arrays[name], ids)
        return {t: rows[t][None] for t in local}

    specs = (_specs(layout, arrays), dict.fromkeys(local, PARTS))
    result: dict[str, jax.Array] = _on_mesh(layout, on_device, specs, dict.fromkeys(local, PARTS))(
        arrays, local
    )
    return result


def sync_unique_ids(lists: Lists, shapes: Mapping[str, tuple[int, int]]) -> dict[str, UniqueIds]:
    """Compute the unique ids of the whole batch on the devices, where the host did not.

    With several processes, each host knows only the ids of its own part of the batch.

    Args:
        lists: unique ids by table; `unique` and `inverse` may be None.
        shapes: (V, E) of each table.

    Returns:
        Complete unique ids by table.
    """

    def synced(local: jax.Array, v: int) -> UniqueIds:
        all_ids = jax.lax.with_sharding_constraint(local, EVERYWHERE).reshape(-1)
        count = min(v, all_ids.size)
        # All padding is mapped to V, which may be one more value than the count of real ids.
        values, index = jnp.unique(
            jnp.minimum(all_ids, v), size=count + 1, fill_value=v, return_inverse=True
        )
        unique = jnp.where(values < v, values, v + jnp.arange(count + 1, dtype=jnp.int32))[:count]
        inverse = jnp.where(all_ids < v, index, count).astype(jnp.int32).reshape(local.shape)
        return UniqueIds(local=local, unique=unique.astype(jnp.int32), inverse=inverse)

    return {
        t: ids if ids.unique is not None else synced(ids.local, shapes[t][0])
        for t, ids in lists.items()
    }


def reduce_row_grads(layout: Layout, grads: Arrays, lists: Lists) -> dict[str, jax.Array]:
    """Sum the gradients of rows over the batch, on the devices that store the rows.

    Args:
        layout: layout of the tables.
        grads: [n, u, E] by table, gradients with respect to the result of `gather_rows`.
        lists: unique ids by table.

    Returns:
        Gradients by stored array, for `TableGrads`.
    """

    def on_device(grads: Arrays, lists: Lists) -> dict[str, jax.Array]:
        ids = _of_device(lists)
        local = {t: g[0] for t, g in grads.items()}
        return {n: exchange.reduce_row_grads(local, ids) for n, exchange in _exchanges(layout)}

    reduced = {name: exchange.grad_spec for name, exchange in _exchanges(layout)}
    specs = (dict.fromkeys(grads, PARTS), _list_specs(lists))
    result: dict[str, jax.Array] = _on_mesh(layout, on_device, specs, reduced)(grads, lists)
    return result


def update_tables(
    layout: Layout,
    optimizer: SparseOptimizer,
    stored: StoredTables,
    grads: TableGrads,
    scalars: UpdateScalars,
    apply: jax.Array,
) -> StoredTables:
    """Update the rows of a batch and their optimizer state in place.

    Args:
        layout: layout of the tables.
        optimizer: optimizer of the rows.
        stored: tables and their optimizer state.
        grads: gradients of the rows of the batch.
        scalars: learning rate, step and weight decay.
        apply: bool []; if false, the step is skipped and nothing changes.

    Returns:
        The tables and their optimizer state after the step.
    """

    def on_device(
        stored: StoredTables, grads: TableGrads, scalars: UpdateScalars, apply: jax.Array
    ) -> StoredTables:
        unique_ids = _of_device(grads.unique_ids)
        arrays: dict[str, jax.Array] = {}
        states: dict[str, State] = {}
        for name, exchange in _exchanges(layout):
            ids = exchange.local_rows(unique_ids)
            v = len(stored.arrays[name])
            # For a skipped step all ids are set out of range, so that the scatter drops them. A
            # conditional around the tables would make XLA copy them.
            valid = apply & (ids >= 0) & (ids < v)
            row_grads = RowGrads(
                ids=jnp.where(valid, ids, v + jnp.arange(len(ids), dtype=ids.dtype)),
                grad_UE=grads.by_array[name],
                ids_are_sorted=exchange.ids_are_sorted,
            )
            arrays[name], states[name] = update_rows(
                optimizer,
                stored.arrays[name],
                stored.states[name],
                row_grads,
                scalars,
                exchange.mean,
            )
        return StoredTables(arrays=arrays, states=states)

    stored_specs = StoredTables(
        arrays=_specs(layout, stored.arrays), states=_specs(layout, stored.states)
    )
    reduced: Any = {name: exchange.grad_spec for name, exchange in _exchanges(layout)}
    grad_specs = TableGrads(unique_ids=_list_specs(grads.unique_ids), by_array=reduced)
    specs = (stored_specs, grad_specs, EVERYWHERE, EVERYWHERE)
    result: StoredTables = _on_mesh(layout, on_device, specs, stored_specs)(
        stored, grads, scalars, apply
    )
    return result


def _exchanges(layout: Layout) -> list[tuple[str, Exchange]]:
    """Return the exchange of each stored array."""
    return [(n, EXCHANGES[s.placement](n, layout)) for n, s in layout.arrays.items()]


def _of_device(lists: Lists) -> dict[str, UniqueIds]:
    """Return the unique ids with `local` and `inverse` [u] of this device."""
    return {
        t: UniqueIds(local=d.local[0], unique=d.unique, inverse=d.inverse[0])
        for t, d in lists.items()
    }


def _specs(layout: Layout, arrays: Mapping[str, Any]) -> Any:
    """Return the partition spec of every stored array or state."""
    return {
        name: jax.tree.map(lambda x, s=layout.arrays[name]: s.spec(x.ndim), tree)
        for name, tree in arrays.items()
    }


def _list_specs(lists: Lists) -> dict[str, UniqueIds]:
    return {t: UniqueIds(local=PARTS, unique=EVERYWHERE, inverse=PARTS) for t in lists}


def _on_mesh(
    layout: Layout, function: Callable[..., Any], in_specs: Any, out_specs: Any
) -> Callable[..., Any]:
    """Return the function under `jax.shard_map`, or as it is for one device."""
    if layout.devices == 1:
        return function
    return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, check_vma=False)
