"""Evaluation of a run: predictions for all target impressions of a split, and their metrics."""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ligr_jax.config import Config, ConfigError, MeshConfig, override, served_config
from ligr_jax.data.manifest import load_manifest
from ligr_jax.data.packing_plan import PackingPlan
from ligr_jax.data.pipeline import eval_batches, plan_for
from ligr_jax.data.post_row import at_post_row, require_post_row
from ligr_jax.data.records import Records
from ligr_jax.data.unique_ids import MappedBatch
from ligr_jax.nn.batch_norm import STATISTICS
from ligr_jax.parallel.processes import all_gather, local_rows
from ligr_jax.progress import log_progress
from ligr_jax.runs.directory import data_directory, load_config
from ligr_jax.runs.files import RunFiles
from ligr_jax.runs.staged import stage_run
from ligr_jax.tables.exchange import gather_rows
from ligr_jax.tables.layout import Layout
from ligr_jax.tables.table import ROWS, TABLES
from ligr_jax.train.checkpoint import Checkpoints
from ligr_jax.train.data import open_verified
from ligr_jax.train.later_data import open_later_data
from ligr_jax.train.measure import Predictions, gather_predictions, measure
from ligr_jax.train.measure_shown import measure_shown
from ligr_jax.train.next_item import NextItemQueries, measure_next_item, previous_queries
from ligr_jax.train.optimizer import split_tables
from ligr_jax.train.preflight import has_kernel
from ligr_jax.train.program import Program
from ligr_jax.train.state import TrainState

_log = logging.getLogger(__name__)


def jit_apply(program: Program, method: str = "__call__") -> Any:
    """Return the compiled function `(state, inputs) -> method(batch)` of the served model."""
    layout, model = program.layout, program.served

    def apply(state: TrainState, inputs: MappedBatch) -> Any:
        dense, tables = split_tables(state.params)
        local = {table: ids.local for table, ids in inputs.unique_ids.items()}
        rows_nUE = gather_rows(layout, tables, local)
        variables = {"params": dense, STATISTICS: state.stats, ROWS: {TABLES: rows_nUE}}
        return model.apply(variables, inputs.batch, method=method)

    return jax.jit(apply)


class Evaluator:
    """Measures a training state on a split, with frozen batch statistics.

    The model is compiled once, and each split is packed once.

    Attributes:
        program: program of the run.
        records: prepared data.
        config: configuration of the run, with the mask of serving (`served_config`).
        model: the model, with that mask.
        apply: compiled function `(state, inputs) -> logits [B, N, A]`.
    """

    def __init__(self, program: Program, records: Records, trained: Records | None = None) -> None:
        """
        Args:
            program: program of the run.
            records: prepared data.
            trained: the same data with the train split of the run; None if `records` has it.
        """
        self.records = records
        self._trained = trained
        self.config = served_config(program.config)
        require_post_row(self.config.model, self.config.eval.position, "eval.position", smallest=0)
        self.program = program
        self.model = program.served
        self.apply = jit_apply(program)
        self._next_item_queries = jit_apply(program, "next_item_queries")
        self._plans: dict[str, PackingPlan] = {}

    def plan(self, split: str) -> PackingPlan:
        """Return the packing plan of a split."""
        if split not in self._plans:
            self._plans[split] = plan_for(self.records, self.config, split)
        return self._plans[split]

    @property
    def layout(self) -> Layout:
        """Layout of the tables."""
        return self.program.layout

    @property
    def mesh(self) -> jax.sharding.Mesh:
        """Devices of the state."""
        return self.program.mesh

    def __call__(
        self, state: TrainState, split: str, progress: Callable[[int, int], None] | None = None
    ) -> dict[str, Any]:
        """Return the metrics of a split; see `measure`.

        Args:
            state: state to measure.
            split: train, validation or test.
            progress: called after each batch with the number of batches done and of all batches.
        """
        predictions = self.predict(state, split, progress)
        out = measure(predictions, self.records, self.config, split, self._trained)
        if self.config.model.post_feature:
            shown = self.predict(state, split, progress, position=0)
            out |= measure_shown(shown, self.records, self.config.model, split)
        if self.config.model.next_item:
            queries, targets = self._queries(state, split), len(predictions.impression)
            out |= measure_next_item(queries, targets, self.records, self.config, split)
        return out

    def predict(
        self,
        state: TrainState,
        split: str,
        progress: Callable[[int, int], None] | None = None,
        position: int | None = None,
    ) -> Predictions:
        """Return the predictions for all targets of a split.

        Args:
            state, split, progress: as in `__call__`.
            position: as in `batches`.
        """
        parts = []
        for part in self.batches(state, split, position):
            parts.append(part)
            if progress:
                progress(len(parts), self.batch_count(split, len(part[0])))
        return gather_predictions(parts, len(self.config.model.actions))

    def batch_count(self, split: str, rows: int) -> int:
        """Return the number of batches of this process, each of `rows` rows."""
        processes: int = jax.process_count()
        return -(-len(self.plan(split)) // (rows * processes))

    def batches(
        self, state: TrainState, split: str, position: int | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """Yield the predictions of each batch of this process.

        The devices compute the next batch meanwhile.

        Args:
            state: state to measure.
            split: train, validation or test.
            position: row of the post feature at which all impressions are scored; 0 for the row
                where each was shown, None for `eval.position`.

        Yields:
            Impression numbers int64 [B, N], whether each is a target bool [B, N], labels int8
            [B, N, A] and logits float32 [B, N, A].
        """
        plan = self.plan(split)
        process = self.program.process
        row = self.config.eval.position if position is None else position
        previous: tuple[np.ndarray, np.ndarray, np.ndarray, Any] | None = None
        for index, inputs in eval_batches(self.records, plan, self.config, process):
            batch = at_post_row(inputs.batch, self.config.model, row)
            inputs = inputs._replace(batch=batch)
            with jax.set_mesh(self.program.mesh):
                logits = self.apply(state, self.program.shard_batch(inputs))
            if previous:
                yield (*previous[:3], local_rows(previous[3]))
            previous = index, inputs.batch.weight > 0, np.asarray(inputs.batch.labels), logits
        if previous:
            yield (*previous[:3], local_rows(previous[3]))

    def _queries(self, state: TrainState, split: str) -> NextItemQueries:
        """Return the queries of the targets of a split, and the table of the items."""
        table = self.config.model.table_of(self.config.model.next_item)
        rows_VE = np.asarray(self.layout.unpack(split_tables(state.params)[1])[table])
        # A process can be without batches, so that it has only this part.
        parts = [(np.zeros(0, np.int64), np.zeros((0, rows_VE.shape[1]), np.float32))]
        for index, inputs in eval_batches(
            self.records, self.plan(split), self.config, self.program.process
        ):
            with jax.set_mesh(self.mesh):
                query_BNE = self._next_item_queries(state, self.program.shard_batch(inputs))
            parts.append(previous_queries(index, inputs.batch, local_rows(query_BNE)))
        impression, query_nE = all_gather([np.concatenate(column) for column in zip(*parts)])
        return NextItemQueries(impression, query_nE, rows_VE)


def evaluate_run(
    run: Path,
    split: str,
    data: Path | None = None,
    batch: int = 0,
    assignments: Sequence[str] = (),
    step: int | None = None,
) -> dict[str, Any]:
    """Return the metrics of a checkpoint of a run on a split.

    Args:
        run: run directory.
        split: train, validation or test.
        data: see `open_evaluator`.
        batch: see `open_evaluator`.
        assignments: see `open_evaluator`.
        step: step of the checkpoint; None for the newest.
    """
    evaluator = open_evaluator(run, data, batch, assignments)
    state, _ = restore_checkpoint(run, evaluator.program, step)
    return evaluator(state, split, log_progress(_log, "batch"))


def restore(
    run: Path,
    data: Path | None = None,
    batch: int = 0,
    assignments: Sequence[str] = (),
    step: int | None = None,
) -> tuple[Evaluator, TrainState]:
    """Restore a checkpoint of a run, together with an evaluator of the data of its training.

    Args:
        run: run directory.
        data: directory of the prepared data; default: the directory that the run used. The data
            must be equal.
        batch: rows per batch; 0 for that of the run.
        assignments: assignments of `mesh.*`, e.g. `mesh.model=4`. By default the mesh is that of
            the run if there are as many devices.
        step: step of the checkpoint; None for the newest.

    Returns:
        The evaluator, and the state on its devices.

    Raises:
        ConfigError: the run has no checkpoint, or its data are missing.
        CheckpointError: the checkpoint is damaged, cannot be read or does not fit config.json.
    """
    evaluator = open_evaluator(run, data, batch, assignments)
    digest, trained_on = evaluator.records.digest, evaluator.config.data.digest
    if digest != trained_on:
        raise ConfigError(
            f"{evaluator.records.directory} has digest {digest}, the run was trained on "
            f"{trained_on}; pass the data it was trained on with --data"
        )
    return evaluator, restore_state(run, evaluator.program, step)


def open_evaluator(
    run: Path, data: Path | None = None, batch: int = 0, assignments: Sequence[str] = ()
) -> Evaluator:
    """Open the data of a run, or other data that fit it, for evaluation.

    Args:
        run: run directory.
        data: directory of the prepared data; default: the directory that the run used. Data that
            the run was not trained on have to have its schema (`ligr_jax.train.later_data`).
        batch: rows per batch; 0 for that of the run.
        assignments: assignments of `mesh.*`; see `restore`.

    Raises:
        ConfigError: the data of the training are missing or were prepared again, or other data do
            not fit the run.
    """
    config = config_here(run, assignments)
    directory = data_directory(run, config, data)
    digest = load_manifest(directory).digest
    changed = dataclasses.replace(config.eval, batch=batch or config.eval.batch)
    config = dataclasses.replace(config, eval=changed)
    if digest == config.data.digest:
        return Evaluator(Program(config), open_verified(directory, config.data.edges, digest))
    if data is None:
        raise ConfigError(
            f"{directory} was prepared again: it has digest {digest}, and the run was trained on "
            f"{config.data.digest}; to evaluate the run on the new data, pass --data {directory}"
        )
    later = open_later_data(run, config, directory)
    return Evaluator(Program(config), later.records, later.trained)


def config_here(run: Path, assignments: Sequence[str] = ()) -> Config:
    """Return the configuration of a run, adapted to the devices of this process.

    A mesh that needs more devices, and a kernel for devices of another kind, are replaced by the
    defaults; the mask is that of serving (`served_config`).

    Args:
        run: run directory.
        assignments: assignments of `mesh.*`; see `restore`.
    """
    stage_run(run)
    config = served_config(load_config(run))
    if max(config.mesh.data, 1) * config.mesh.model > jax.device_count():
        config = dataclasses.replace(config, mesh=MeshConfig())
    if not has_kernel(config.model):
        model = dataclasses.replace(config.model, implementation="auto")
        config = dataclasses.replace(config, model=model)
    others = [a for a in assignments if not a.startswith("mesh.")]
    if others:
        raise ConfigError(f"{others[0]}: only mesh.* of a trained run can be changed")
    return override(config, assignments)


def restore_state(run: Path, program: Program, step: int | None = None) -> TrainState:
    """Restore the state of a checkpoint without reading data.

    Args:
        run: run directory.
        program: program whose mesh gets the state.
        step: step of the checkpoint; None for the newest.

    Raises:
        ConfigError: the run has no checkpoint.
        CheckpointError: the checkpoint is damaged, cannot be read or does not fit config.json.
    """
    return restore_checkpoint(run, program, step)[0]


def restore_checkpoint(
    run: Path, program: Program, step: int | None = None
) -> tuple[TrainState, dict[str, Any]]:
    """Restore a checkpoint; arguments and errors as those of `restore_state`.

    Returns:
        The state, and its meta: `totals` are the `ligr_jax.train.meter.Totals` of the training.
    """
    checkpoints = Checkpoints(RunFiles(run).checkpoints, program.config.train.keep, program.layout)
    restored = checkpoints.read(program.abstract_state(), step)
    if restored is None:
        raise ConfigError(f"{run} has no checkpoint; train it first")
    return restored
