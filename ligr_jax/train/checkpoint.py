"""Checkpoints by orbax, with what orbax does not do: notice that a file has changed on disk.

A digest of every leaf is saved beside the state and compared on restore; a step that does not
match, or cannot be read, is reported and the one before it is taken. A state saved on one mesh is
restored on any other, its tables laid out anew.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding, PartitionSpec

from ligr_jax.config import TableShape
from ligr_jax.tables.layout import Layout, layout
from ligr_jax.tables.table import TABLES
from ligr_jax.train.state import TrainState


class Checkpoints:
    """The newest `keep` checkpoints of a run, in DIRECTORY/<step>."""

    def __init__(
        self, directory: Path, keep: int, tables: Layout, say: Callable[[str], None] = print
    ) -> None:
        """tables: how states lie on this mesh."""
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        # Trained floats hardly get smaller, and compressing them takes another copy of each table.
        handlers = {
            "state": ocp.PyTreeCheckpointHandler(use_compression=False),
            "meta": ocp.JsonCheckpointHandler(),
        }
        self._manager = ocp.CheckpointManager(
            directory.absolute(), options=options, item_handlers=handlers
        )
        self._tables, self._say = tables, say

    def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Saves in the background; a process killed meanwhile leaves the earlier steps intact."""
        if step in self._manager.all_steps():
            return
        tables = {"model": self._tables.model, "placements": dict(self._tables.placements)}
        described = {"meta": meta, "leaves": _describe(state), "tables": tables}
        args = ocp.args.Composite(
            state=ocp.args.PyTreeSave(state), meta=ocp.args.JsonSave(described)
        )
        self._manager.save(step, args=args)

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest intact state, on the devices of `like`, and its meta; None if there is none.

        like: `jax.ShapeDtypeStruct`s with shardings.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                state, meta, wrong = self._read(step, like)
            except Exception as e:  # orbax raises whatever its readers raise on a damaged file
                wrong = [f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"]
            if not wrong:
                return state, meta
            self._say(f"checkpoint {step} is damaged ({wrong[0]}); going back to the one before")
            self._manager.delete(step)  # or the manager would refuse to save this step again
        return None

    def _read(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any], list[str]]:
        args = ocp.args.Composite(meta=ocp.args.JsonRestore())
        saved = self._manager.restore(step, args=args)["meta"]
        shapes = {t: TableShape(s.rows, s.width) for t, s in self._tables.spans.items()}
        there = layout(shapes, saved["tables"]["placements"], 1, saved["tables"]["model"])
        as_here = there.arrays == self._tables.arrays
        target = like if as_here else _as_saved(like, there)
        arguments = jax.tree.map(
            lambda x: ocp.ArrayRestoreArgs(
                sharding=x.sharding, global_shape=x.shape, dtype=x.dtype, strict=as_here
            ),
            target,
        )
        restore = ocp.args.PyTreeRestore(target, restore_args=arguments)
        state = self._manager.restore(step, args=ocp.args.Composite(state=restore))["state"]
        wrong = _differences(saved["leaves"], _describe(state))
        if not as_here and not wrong:
            state = _laid_out(state, there, self._tables, like)
        return state, saved["meta"], wrong

    def wait(self) -> None:
        """Returns when all saves are on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


def _tables_of(state: TrainState) -> tuple[Any, Any]:
    """By stored array: tables, and what the optimizer keeps of their rows."""
    return state.params[TABLES], state.opt_state["rows"]


def _with_tables(state: TrainState, tables: Any, rows: Any) -> TrainState:
    return state._replace(
        params={**state.params, TABLES: tables}, opt_state={**state.opt_state, "rows": rows}
    )


def _as_saved(like: TrainState, there: Layout) -> TrainState:
    """Shapes for reading a state of another layout: rows in equal parts over all devices."""
    mesh = jax.tree.leaves(like.params)[0].sharding.mesh
    over_all = NamedSharding(mesh, PartitionSpec(mesh.axis_names))

    def stored(tree: Any) -> Any:
        """tree: of arrays of one table."""
        return {
            name: jax.tree.map(
                lambda x, a=array: jax.ShapeDtypeStruct(
                    (-(-a.rows // mesh.size) * mesh.size, a.width)[: x.ndim],
                    x.dtype,
                    sharding=over_all,
                ),
                tree,
            )
            for name, array in there.arrays.items()
        }

    return _with_tables(like, *(stored(next(iter(t.values()))) for t in _tables_of(like)))


def _laid_out(state: TrainState, there: Layout, here: Layout, like: TrainState) -> TrainState:
    where = jax.tree.map(lambda x: x.sharding, _tables_of(like))
    move = jax.jit(
        lambda trees: tuple(here.pack(there.unpack(tree)) for tree in trees), out_shardings=where
    )
    return _with_tables(state, *move(_tables_of(state)))


def _describe(state: Any) -> dict[str, list[Any]]:
    """Per leaf: digest, dtype. The same on every mesh, whatever zeros pad a table there."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    # One at a time: simulated devices share few threads, and sums over devices of several programs
    # at once waited for each other for ever, with large tables split by columns.
    digests = [jax.device_get(_digest(leaf)) for _, leaf in leaves]
    return {
        jax.tree_util.keystr(path): [int(digest), str(leaf.dtype)]
        for (path, leaf), digest in zip(leaves, digests)
    }


@jax.jit
def _digest(x: jax.Array) -> jax.Array:
    """uint32: the sum of all elements' bits, each times an odd number that its place gives, so that
    any one change shows. Computed where the array lies; zeros add nothing. Beside the array there
    is one number a row and no more: XLA would make all terms of a single sum before adding them."""
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
    place = jnp.zeros(x.shape, jnp.uint32)
    for axis in range(x.ndim):
        at = jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
        place = (place ^ at) * jnp.uint32(0x9E3779B1)
        place ^= place >> 15
    total = bits * (place | 1)
    for _ in range(x.ndim):
        total = jax.lax.optimization_barrier(jnp.sum(total, axis=-1, dtype=jnp.uint32))
    return total


def _differences(saved: dict[str, list[Any]], found: dict[str, list[Any]]) -> list[str]:
    return [
        f"{k} differs from what was saved" for k in saved | found if saved.get(k) != found.get(k)
    ]
