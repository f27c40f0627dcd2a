"""Checkpoints in the format of orbax, with digests that detect files that have changed on disk.

A digest of every leaf and of every file is saved with the state. Only the trainer that owns a run
changes its checkpoints: it sets a step aside if a digest proves damage. A checkpoint that cannot be
read for another reason, or that belongs to another model, raises an error, and nothing is changed.
A state that was saved on one mesh can be restored on any other mesh.
"""

import logging
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

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
from ligr_jax.runs.stored_steps import publish_part, publish_step, stage_checkpoint, stage_newest
from ligr_jax.store.mirror import uri_of
from ligr_jax.store.publish import as_tree
from ligr_jax.store.stage import DamagedObject
from ligr_jax.tables.layout import Layout
from ligr_jax.train.checkpoint_description import (
    FORMAT_VERSION,
    describe_layout,
    layout_in,
    require_readable_version,
    require_same_leaves,
)
from ligr_jax.train.checkpoint_layout import convert_layout, with_layout
from ligr_jax.train.leaf_digests import differences, digests_of
from ligr_jax.train.state import TrainState

_log = logging.getLogger(__name__)

T = TypeVar("T")

# Files up to this size (bytes) are checked before a step is read. The digests of the leaves detect
# damage in larger files.
_CHECKED_FIRST = 2**26
_LONGEST_SAVE_S = 6 * 3600  # orbax waits so long for all processes, which may upload their files

# Replicas share the writing of an array if each then writes at least so many bytes. Of a smaller
# array one replica writes all, because orbax compiles a program for each slice of each shape.
_LEAST_SLICE = 2**20


class Checkpoints:
    """The newest checkpoints of a run, in DIRECTORY/<step>.

    Attributes:
        damaged: a message for each step that `restore` has set aside.
        save_seconds: longest time from a call of `save` until everything is on disk, or in the
            store; 0 if this process has saved nothing. Process 0 has it.
    """

    def __init__(
        self,
        directory: Path,
        keep: int,
        tables: Layout,
        publish_rows: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            directory: directory of the checkpoints.
            keep: number of checkpoints to keep.
            tables: layout of the tables on this mesh.
            publish_rows: uploads the rows of metrics before a step is complete in a store.
        """
        self._directory = directory.absolute()
        self._keep = keep
        self._tables = tables
        self.damaged: list[str] = []
        self._publish_rows = publish_rows
        self._saving = 0  # the step whose files are being written
        self._began = 0.0  # when its save was requested
        self.save_seconds = 0.0
        # Each process of a run in a store writes its shards to a directory of its own, from which
        # it uploads them; hosts have no common file system.
        self._in_parts = uri_of(directory) is not None and jax.process_count() > 1

    @cached_property
    def _manager(self) -> ocp.CheckpointManager:
        """Create the manager at the first save: it creates the directory, and a reader must not."""
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1 if self._in_parts else self._keep,
            create=True,
            lightweight_initialize=True,  # a damaged step does not stop the manager
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=None if self._in_parts else 0
            ),
            async_options=ocp.options.AsyncOptions(
                post_finalization_callback=self._seal, timeout_secs=_LONGEST_SAVE_S
            ),
        )
        return ocp.CheckpointManager(
            self._written,
            options=options,
            item_handlers={
                "state": _handler(self._in_parts),
                "meta": ocp.JsonCheckpointHandler(),
            },
        )

    @property
    def _written(self) -> Path:
        """Directory that this process writes to."""
        if not self._in_parts:
            return self._directory
        return self._directory / f".part-{jax.process_index()}"

    def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Save in the background. If the process is killed meanwhile, earlier steps stay intact.

        Args:
            step: number of steps that are done.
            state: state after these steps.
            meta: JSON values that describe it.

        Raises:
            FileError: this step or the one before cannot be written, e.g. to a full disk.
        """
        if step in steps_in(self._directory) or step == self._saving:
            return
        began = time.monotonic()
        description = {
            "version": FORMAT_VERSION,
            "meta": meta,
            "leaves": digests_of(state),
            "tables": describe_layout(self._tables),
        }
        args = ocp.args.Composite(
            state=ocp.args.PyTreeSave(state),
            meta=ocp.args.JsonSave({**description, DIGEST: digest_json(description)}),
        )
        self.wait()
        self._saving = step
        self._began = began
        with save_errors(self._directory / str(step)):
            self._manager.save(step, args=args)

    def _seal(self) -> None:
        """Add the digests of the files, and upload them; called before the step is renamed.

        Process 0 calls it, or every process if each one writes a part.
        """
        parts = list(self._written.glob(f"{self._saving}.*-tmp*"))
        part = max(parts, key=lambda part: part.stat().st_mtime_ns)
        step = self._directory / str(self._saving)
        with as_tree(self._directory):
            if self._in_parts:
                publish_part(part, step, self._keep, self._publish_rows)
            else:
                seal(part)
        if not self._in_parts:
            self._publish_rows()
            publish_step(part, step, self._keep)
        self.save_seconds = max(self.save_seconds, time.monotonic() - self._began)

    def restore(self, abstract_state: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """Restore the newest intact state, and set damaged steps aside.

        Only the trainer that owns the run may call it.

        Args:
            abstract_state: `jax.ShapeDtypeStruct`s with shardings.

        Returns:
            The state with these shardings, and its meta; None if no checkpoint is intact.

        Raises:
            CheckpointError: a step cannot be read, or belongs to another model; nothing is changed.
        """
        self.damaged += stage_newest(self._directory.parent)
        steps = steps_in(self._directory)
        for step in steps:
            try:
                return self._read(step, abstract_state)
            except DamagedCheckpoint as e:
                path = self._directory / str(step)
                aside = set_aside(path) if is_first() else path
                _wait_for_all(f"checkpoint {step} set aside")
                self.damaged.append(
                    f"checkpoint {step} is damaged ({e}); it was set aside as {aside}, and the one "
                    "before it is taken"
                )
                _log.warning(self.damaged[-1])
        if steps:
            _log.warning("checkpoint: none is intact; training starts at step 0")
        return None

    def read(
        self, abstract_state: TrainState, step: int | None = None
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """Restore the state of a step without changing any file.

        Args:
            abstract_state: `jax.ShapeDtypeStruct`s with shardings.
            step: step to restore; None for the newest.

        Returns:
            The state with these shardings, and its meta; None if there is no checkpoint.

        Raises:
            CheckpointError: the step is missing, damaged or unreadable, or belongs to another
                model. No other step is used in its place.
        """
        try:
            stage_checkpoint(self._directory.parent, step)
        except DamagedObject as e:
            raise CheckpointError(f"{e}. Nothing was changed") from e
        steps = steps_in(self._directory)
        if step is None and not steps:
            return None
        if step is not None and step not in steps:
            raise CheckpointError(
                f"{self._directory} has no checkpoint {step}; it has {sorted(steps) or 'none'}"
            )
        step = steps[0] if step is None else step
        try:
            return self._read(step, abstract_state)
        except DamagedCheckpoint as e:
            raise CheckpointError(
                f"{self._directory}: checkpoint {step} is damaged ({e}). Nothing was changed. "
                f"{self._remedy(step, abstract_state)}"
            ) from e

    def _remedy(self, damaged: int, abstract_state: TrainState) -> str:
        """Return what a reader can do about a damaged step."""
        summary = RunFiles(self._directory.parent).summary
        again = "the same `ligr train` sets it aside and continues from the newest intact one"
        if summary.exists():
            again = f"remove {summary} and {again}, which ends with the same numbers"
        for step in steps_in(self._directory):
            if step != damaged and self._is_intact(step, abstract_state):
                return (
                    f"The newest intact one is {step}: `ligr eval` and `ligr export` take it with "
                    f"--step {step}. To make step {damaged} again: {again}"
                )
        return f"No other one is intact. To make step {damaged} again: {again}, or from step 0"

    def _is_intact(self, step: int, abstract_state: TrainState) -> bool:
        path = self._directory / str(step)
        if is_sealed(path):
            return intact(path)
        try:
            self._read(step, abstract_state)
        except CheckpointError:
            return False
        return True

    def _read(self, step: int, abstract_state: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Return the state and the meta of a step.

        Raises:
            DamagedCheckpoint: a digest proves damage.
            CheckpointError: the step cannot be read for another reason, or has another model.
        """
        path = self._directory / str(step)
        _run_in_all(lambda: self._check(path, _CHECKED_FIRST, None) if is_first() else None)
        saved, saved_layout, state = _run_in_all(lambda: self._restore_step(path, abstract_state))
        wrong = differences(saved["leaves"], digests_of(state))
        if wrong:
            # The files name the damage better than the leaf does.
            _run_in_all(lambda: self._check(path, None, None) if is_first() else None)
            raise DamagedCheckpoint(wrong[0])
        if saved_layout.arrays != self._tables.arrays:
            state = convert_layout(state, saved_layout, self._tables, abstract_state)
        return state, saved["meta"]

    def _restore_step(
        self, path: Path, abstract_state: TrainState
    ) -> tuple[dict[str, Any], Layout, TrainState]:
        """Return the description of a step, the layout of its tables, and its state as saved."""
        try:
            saved = read_json(path / "meta" / "metadata", "it describes the step")
            require_readable_version(path, saved)
            saved_layout = layout_in(path, saved["tables"], self._tables)
            same_layout = saved_layout.arrays == self._tables.arrays
            target = abstract_state
            if not same_layout:
                target = with_layout(abstract_state, saved_layout)
            require_same_leaves(path, saved["leaves"], target, same_layout)
            arguments = jax.tree.map(
                lambda x: ocp.ArrayRestoreArgs(
                    sharding=x.sharding, global_shape=x.shape, dtype=x.dtype, strict=same_layout
                ),
                target,
            )
            restore = ocp.args.PyTreeRestore(target, restore_args=arguments)
            return saved, saved_layout, _handler().restore(path / "state", args=restore)
        except CheckpointError:
            raise
        except ChangedFile as e:
            raise DamagedCheckpoint(str(e)) from e
        except Exception as e:  # orbax passes on the errors of all its readers
            self._check(path, None, e)
            raise

    def _check(self, path: Path, largest: int | None, error: Exception | None) -> None:
        """Compare the files of a step with their digests, if there are any; then raise the error.

        Args:
            path: directory of the step.
            largest: size (bytes) of the largest file to compare; None for all files.
            error: error of reading the step; None if there was none.

        Raises:
            DamagedCheckpoint: a digest proves damage.
            CheckpointError: the step cannot be read for another reason.
        """
        try:
            if is_sealed(path):
                require_intact(path, largest)
            elif "CRC-32C checksum verification failed" in str(error):
                raise DamagedCheckpoint(str(error).split(" [tensorstore_spec")[0])
        except DamagedFile as e:  # the file of the digests: the leaves have digests of their own
            error = error and e
        except OSError as e:
            error = e
        if error is not None:
            text = str(error).split("\n")[0].split(" [tensorstore_spec")[0]
            others = [s for s in steps_in(self._directory) if str(s) != path.name]
            older = (
                f", or give --step {others[0]} to `ligr eval` or `ligr export`" if others else ""
            )
            raise CheckpointError(
                f"{self._directory}: checkpoint {path.name} cannot be read "
                f"({type(error).__name__}: {text}). Nothing was changed. Run the command again "
                f"when the file can be read; else move {path} away{older}"
            ) from error

    def wait(self) -> None:
        """Return when all saves are on disk.

        Raises:
            FileError: the last step cannot be written.
        """
        with save_errors(self._directory / str(self._saving)):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Release the threads of the manager."""
        self._manager.close()


def _handler(in_parts: bool = False) -> ocp.PyTreeCheckpointHandler:
    """Return the handler of the state.

    Args:
        in_parts: whether no two processes may write the same file. The indices of OCDBT would have
            to be merged then; zarr3 has a file per shard, and no file with a hidden name.
    """
    # Trained floats compress badly, and compression needs another copy of each table.
    arrays = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=_LEAST_SLICE)
    return ocp.PyTreeCheckpointHandler(
        use_compression=False,
        use_ocdbt=not in_parts,
        use_zarr3=in_parts,
        type_handler_registry=ocp.type_handlers.create_type_handler_registry((jax.Array, arrays)),
    )


def _wait_for_all(name: str) -> None:
    """Wait until all processes of the run are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def _run_in_all(action: Callable[[], T]) -> T:
    """Run an action in every process; if it fails in one of them, all of them raise.

    Raises:
        DamagedCheckpoint: it found damage in a process, and no process had another failure.
        CheckpointError: it had another failure.
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
