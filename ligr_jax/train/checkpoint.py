"""Checkpoints by orbax, with what orbax does not do: notice that a file has changed on disk.

A digest of every leaf, and of every file, is saved with the state. Only the run's own trainer
changes a checkpoint: it sets a step aside where a digest proves damage. A checkpoint that cannot be
read for another reason, or that belongs to another model, is an error that changes nothing. A state
saved on one mesh is restored on any other.
"""

import logging
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from ligr_jax.config import RENAMED_VALUES, TableShape
from ligr_jax.digests import DIGEST, ChangedFile, DamagedFile, digest_json, read_json
from ligr_jax.parallel.processes import all_gather, is_first
from ligr_jax.runs.checkpoint_files import (
    CheckpointError,
    DamagedCheckpoint,
    intact,
    is_sealed,
    require_intact,
    save_errors,
    seal,
    set_aside,
    steps_in,
)
from ligr_jax.runs.files import RunFiles
from ligr_jax.tables.layout import Layout, layout
from ligr_jax.tables.table import TABLES
from ligr_jax.train.leaf_digests import differences, digests_of
from ligr_jax.train.state import TrainState

_log = logging.getLogger(__name__)

T = TypeVar("T")

# Format of checkpoints. Version 1, of releases before 0.2, has no field `version`, and the earlier
# names of placements.
FORMAT_VERSION = 2
# Files up to this size are checked before a step is read; damage in larger ones shows in the
# digests of the leaves.
_CHECKED_FIRST = 2**26


class Checkpoints:
    """The newest `keep` checkpoints of a run, in DIRECTORY/<step>."""

    def __init__(self, directory: Path, keep: int, tables: Layout) -> None:
        """tables: how states lie on this mesh."""
        self._directory, self._keep = directory.absolute(), keep
        self._tables = tables
        self._saving = 0  # the step whose files are being written

    @cached_property
    def _manager(self) -> ocp.CheckpointManager:
        """Made by the first save: it makes the directory, and a reader must not."""
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self._keep,
            create=True,
            lightweight_initialize=True,  # a damaged step does not stop the manager
            async_options=ocp.options.AsyncOptions(post_finalization_callback=self._seal),
        )
        return ocp.CheckpointManager(
            self._directory,
            options=options,
            item_handlers={"state": _handler(), "meta": ocp.JsonCheckpointHandler()},
        )

    def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Save in the background; a process killed meanwhile leaves the earlier steps intact.

        Raises:
            FileError: this step or the one before cannot be written, e.g. to a full disk.
        """
        if step in steps_in(self._directory):
            return
        tables = {
            "model": self._tables.model,
            "placements": dict(self._tables.placements),
            "shapes": {t: [s.rows, s.width] for t, s in self._tables.spans.items()},
        }
        described = {
            "version": FORMAT_VERSION,
            "meta": meta,
            "leaves": digests_of(state),
            "tables": tables,
        }
        args = ocp.args.Composite(
            state=ocp.args.PyTreeSave(state),
            meta=ocp.args.JsonSave({**described, DIGEST: digest_json(described)}),
        )
        self.wait()
        self._saving = step
        with save_errors(self._directory / str(step)):
            self._manager.save(step, args=args)

    def _seal(self) -> None:
        """Add the digests of the files, before orbax gives the step its name; the first process."""
        parts = list(self._directory.glob(f"{self._saving}.*-tmp*"))
        seal(max(parts, key=lambda part: part.stat().st_mtime_ns))

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """Return the newest intact state, on the devices of `like`, and its meta; None without one.

        For the trainer that owns the run: damaged steps are set aside.

        Args:
            like: `jax.ShapeDtypeStruct`s with shardings.

        Raises:
            CheckpointError: a step cannot be read, or belongs to another model; nothing is changed.
        """
        found = steps_in(self._directory)
        for step in found:
            try:
                return self._read(step, like)
            except DamagedCheckpoint as e:
                place = self._directory / str(step)
                aside = set_aside(place) if is_first() else place
                _meet(f"checkpoint {step} set aside")
                _log.warning(
                    f"checkpoint {step} is damaged ({e}); it was set aside as {aside}, and the one "
                    "before it is taken"
                )
        if found:
            _log.warning("checkpoint: none is intact; training starts at step 0")
        return None

    def read(
        self, like: TrainState, step: int | None = None
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """Return the state of `step`, or of the newest one; None without one. Changes nothing.

        Raises:
            CheckpointError: the step is not there, is damaged, cannot be read, or belongs to
                another model. No other step is taken in its place.
        """
        found = steps_in(self._directory)
        if step is None and not found:
            return None
        if step is not None and step not in found:
            raise CheckpointError(
                f"{self._directory} has no checkpoint {step}; it has {sorted(found) or 'none'}"
            )
        step = found[0] if step is None else step
        try:
            return self._read(step, like)
        except DamagedCheckpoint as e:
            raise CheckpointError(
                f"{self._directory}: checkpoint {step} is damaged ({e}). Nothing was changed. "
                f"{self._remedy(step, like)}"
            ) from e

    def _remedy(self, damaged: int, like: TrainState) -> str:
        """What a reader can do about a damaged step."""
        summary = RunFiles(self._directory.parent).summary
        again = "the same `ligr train` sets it aside and continues from the newest intact one"
        if summary.exists():
            again = f"remove {summary} and {again}, which ends with the same numbers"
        for step in steps_in(self._directory):
            if step != damaged and self._is_intact(step, like):
                return (
                    f"The newest intact one is {step}: `ligr eval` and `ligr export` take it with "
                    f"--step {step}. To make step {damaged} again: {again}"
                )
        return f"No other one is intact. To make step {damaged} again: {again}, or from step 0"

    def _is_intact(self, step: int, like: TrainState) -> bool:
        place = self._directory / str(step)
        if is_sealed(place):
            return intact(place)
        try:
            self._read(step, like)
        except CheckpointError:
            return False
        return True

    def _read(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The state and meta of a step.

        Raises:
            DamagedCheckpoint: a digest proves damage.
            CheckpointError: the step cannot be read for another reason, or is of another model.
        """
        place = self._directory / str(step)
        _agree(lambda: self._check(place, _CHECKED_FIRST, None) if is_first() else None)
        saved, there, state = _agree(lambda: self._restored(place, like))
        wrong = differences(saved["leaves"], digests_of(state))
        if wrong:
            _agree(lambda: self._check(place, None, None) if is_first() else None)
            raise DamagedCheckpoint(wrong[0])
        if there.arrays != self._tables.arrays:
            state = _laid_out(state, there, self._tables, like)
        return state, saved["meta"]

    def _restored(self, place: Path, like: TrainState) -> tuple[dict[str, Any], Layout, TrainState]:
        """What meta says, the layout of the saved tables, and the state in that layout."""
        try:
            saved = read_json(place / "meta" / "metadata", "it describes the step")
            _require_readable(place, saved)
            there = self._saved_layout(place, saved)
            as_here = there.arrays == self._tables.arrays
            target = like if as_here else _as_saved(like, there)
            _require_same_tree(place, saved["leaves"], target, as_here)
            arguments = jax.tree.map(
                lambda x: ocp.ArrayRestoreArgs(
                    sharding=x.sharding, global_shape=x.shape, dtype=x.dtype, strict=as_here
                ),
                target,
            )
            restore = ocp.args.PyTreeRestore(target, restore_args=arguments)
            return saved, there, _handler().restore(place / "state", args=restore)
        except CheckpointError:
            raise
        except ChangedFile as e:
            raise DamagedCheckpoint(str(e)) from e
        except Exception as e:  # orbax raises whatever its readers raise
            self._check(place, None, e)
            raise

    def _saved_layout(self, place: Path, saved: dict[str, Any]) -> Layout:
        """How tables lie in a checkpoint.

        Raises:
            CheckpointError: its tables are not those of the configuration.
        """
        tables = saved["tables"]
        here = {t: [s.rows, s.width] for t, s in self._tables.spans.items()}
        there = tables.get("shapes", {t: here.get(t) for t in tables["placements"]})
        for name in sorted(here | there):
            if here.get(name) != there.get(name):
                raise _mismatch(place, f"table {name}", there.get(name), here.get(name))
        shapes = {t: TableShape(*shape) for t, shape in here.items()}
        earlier = RENAMED_VALUES["mesh.placement"]
        placements = {t: earlier.get(p, p) for t, p in tables["placements"].items()}
        return layout(shapes, placements, 1, tables["model"])

    def _check(self, place: Path, largest: int | None, error: Exception | None) -> None:
        """Compare a step's files with their digests, where it has any; then raise for `error`."""
        try:
            if is_sealed(place):
                require_intact(place, largest)
            elif "CRC-32C checksum verification failed" in str(error):
                raise DamagedCheckpoint(str(error).split(" [tensorstore_spec")[0])
        except DamagedFile as e:  # the digests: the leaves have their own
            error = error and e
        except OSError as e:
            error = e
        if error is not None:
            text = str(error).split("\n")[0].split(" [tensorstore_spec")[0]
            others = [s for s in steps_in(self._directory) if str(s) != place.name]
            older = (
                f", or give --step {others[0]} to `ligr eval` or `ligr export`" if others else ""
            )
            raise CheckpointError(
                f"{self._directory}: checkpoint {place.name} cannot be read "
                f"({type(error).__name__}: {text}). Nothing was changed. Run the command again "
                f"when the file can be read; else move {place} away{older}"
            ) from error

    def wait(self) -> None:
        """Return when all saves are on disk.

        Raises:
            FileError: the last step cannot be written.
        """
        with save_errors(self._directory / str(self._saving)):
            self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


def _handler() -> ocp.PyTreeCheckpointHandler:
    # Trained floats hardly get smaller, and compressing them takes another copy of each table.
    return ocp.PyTreeCheckpointHandler(use_compression=False)


def _meet(where: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)


def _agree(action: Callable[[], T]) -> T:
    """The action's result, where it succeeds in every process; else all of them raise.

    Raises:
        DamagedCheckpoint: it found damage in a process, and no other failure in any.
        CheckpointError: it failed otherwise.
    """
    result: Any = None
    error: CheckpointError | None = None
    code = 0
    try:
        result = action()
    except DamagedCheckpoint as e:
        error, code = e, 1
    except CheckpointError as e:
        error, code = e, 2
    (codes,) = all_gather([np.array([code])])
    worst = int(codes.max())
    if error is not None and code == worst:
        raise error
    if worst:
        kind = DamagedCheckpoint if worst == 1 else CheckpointError
        raise kind("found by another process: see its output")
    return cast(T, result)


def _require_readable(place: Path, saved: dict[str, Any]) -> None:
    """Refuse a checkpoint of a newer format, which may mean the same names differently.

    Raises:
        CheckpointError: names both versions and the remedy.
    """
    version = saved.get("version", 1)
    if version not in range(1, FORMAT_VERSION + 1):
        raise CheckpointError(
            f"{place} has format version {version}, and this release reads 1 to {FORMAT_VERSION}; "
            "nothing was changed: install the release of ligr_jax that wrote it, or a newer one"
        )


def _require_same_tree(
    place: Path, saved: dict[str, list[Any]], target: TrainState, as_here: bool
) -> None:
    """Refuse a checkpoint whose leaves are not those of the configuration.

    saved: of each leaf digest, dtype and shape; the first releases saved no shape.
    as_here: whether tables lie in it as on this mesh; else their rows are padded otherwise.
    """
    wanted = {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(target)
    }
    for name in sorted(wanted | saved):
        if name not in saved or name not in wanted:
            leaf = wanted.get(name)
            here = None if leaf is None else f"{leaf.dtype} {list(leaf.shape)}"
            raise _mismatch(place, f"leaf {name}", saved.get(name, [0, None])[1], here)
        leaf, (_, dtype, *shape) = wanted[name], saved[name]
        shape = shape[0] if shape else list(leaf.shape)
        is_table = f"['{TABLES}']" in name or "['rows']" in name
        same = shape == list(leaf.shape) or (is_table and not as_here)
        if dtype != str(leaf.dtype) or not same:
            raise _mismatch(
                place, f"leaf {name}", f"{dtype} {shape}", f"{leaf.dtype} {list(leaf.shape)}"
            )


def _mismatch(place: Path, what: str, there: Any, here: Any) -> CheckpointError:
    return CheckpointError(
        f"{place} does not fit the configuration: {what} is {there or 'missing'} in the checkpoint "
        f"and {here or 'missing'} by the configuration; nothing was changed: restore "
        f"{RunFiles(place.parents[1]).config} as the run wrote it, or give the values it has"
    )


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
