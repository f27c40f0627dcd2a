"""A training state whose tables are stored in another layout, as on the mesh that saved them."""

from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from ligr_jax.tables.layout import Layout, Stored
from ligr_jax.tables.table import TABLES
from ligr_jax.train.state import TrainState


def _tables_of(state: TrainState) -> tuple[Any, Any]:
    """Return the tables and the state of their optimizer, by stored array."""
    return state.params[TABLES], state.opt_state["rows"]


def _with_tables(state: TrainState, tables: Any, rows: Any) -> TrainState:
    return state._replace(
        params={**state.params, TABLES: tables}, opt_state={**state.opt_state, "rows": rows}
    )


def with_layout(abstract_state: TrainState, saved_layout: Layout) -> TrainState:
    """Return the shapes of a state whose tables have another layout.

    Rows of stored arrays are sharded over all devices, whatever their placement.
    """
    mesh = jax.tree.leaves(abstract_state.params)[0].sharding.mesh
    over_rows = NamedSharding(mesh, PartitionSpec(mesh.axis_names))

    def stored(of_one_table: Any) -> Any:
        def shape_in(array: Stored) -> Any:
            rows = -(-array.rows // mesh.size) * mesh.size
            return jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(
                    (rows, array.width)[: x.ndim], x.dtype, sharding=over_rows
                ),
                of_one_table,
            )

        return {name: shape_in(array) for name, array in saved_layout.arrays.items()}

    tables, rows = _tables_of(abstract_state)
    return _with_tables(
        abstract_state, stored(next(iter(tables.values()))), stored(next(iter(rows.values())))
    )


def convert_layout(
    state: TrainState, saved_layout: Layout, new_layout: Layout, abstract_state: TrainState
) -> TrainState:
    """Return a state with its tables in another layout, with the shardings of `abstract_state`."""
    shardings = jax.tree.map(lambda x: x.sharding, _tables_of(abstract_state))

    def convert(trees: Any) -> Any:
        return tuple(new_layout.pack(saved_layout.unpack(tree)) for tree in trees)

    converted = jax.jit(convert, out_shardings=shardings)(_tables_of(state))
    return _with_tables(state, *converted)
