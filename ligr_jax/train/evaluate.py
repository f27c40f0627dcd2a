"""Evaluation of a split: predictions for all target impressions, then exact metrics.

Batches and processes are merged by concatenating their predictions, so metrics do not depend on
how the split was divided. If the log has true probabilities, the oracle that predicts them is
measured on the same impressions. Without a leak, no model has a lower cross-entropy, up to noise.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ligr_jax.config import Config, ConfigError, MeshConfig, join_list, metric_key, override
from ligr_jax.data.manifest import load_manifest
from ligr_jax.data.packing_plan import PackingPlan
from ligr_jax.data.pipeline import eval_batches, plan_for
from ligr_jax.data.records import Records
from ligr_jax.data.schema import BadInput
from ligr_jax.data.unique_ids import MappedBatch
from ligr_jax.nn.batch_norm import STATISTICS
from ligr_jax.ops import metrics
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
from ligr_jax.train.next_item import NextItemQueries, measure_next_item, previous_queries
from ligr_jax.train.optimizer import split_tables
from ligr_jax.train.preflight import has_kernel
from ligr_jax.train.program import Program
from ligr_jax.train.state import TrainState

_log = logging.getLogger(__name__)

# A model whose cross-entropy is this many standard errors below the oracle's has a leak.
_LEAK_SIGMAS = 4.0


@dataclass(frozen=True)
class Predictions:
    """Predictions for the targets of a split, in the order of their impression numbers.

    Attributes:
        impression: int64 [n], impression numbers.
        logits: float32 [n, A].
        labels: int8 [n, A]; 1, 0, or -1 if unknown.
    """

    impression: np.ndarray
    logits: np.ndarray
    labels: np.ndarray


def jit_apply(program: Program, method: str = "__call__") -> Any:
    """Return the compiled function `(state, inputs) -> method(batch)` of the model."""
    layout, model = program.layout, program.model

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
        config: configuration of the run.
        model: the model.
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
        self.config = program.config
        self.program = program
        self.model = program.model
        self.apply = jit_apply(program)
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
        if self.config.model.next_item:
            out |= measure_next_item(self._queries(state, split), self.records, self.config, split)
        return out

    def predict(
        self, state: TrainState, split: str, progress: Callable[[int, int], None] | None = None
    ) -> Predictions:
        """Return the predictions for all targets of a split; arguments as in `__call__`."""
        parts = []
        for part in self.batches(state, split):
            parts.append(part)
            if progress:
                progress(len(parts), self.batch_count(split, len(part[0])))
        return gather_predictions(parts, len(self.config.model.actions))

    def batch_count(self, split: str, rows: int) -> int:
        """Return the number of batches of this process, each of `rows` rows."""
        processes: int = jax.process_count()
        return -(-len(self.plan(split)) // (rows * processes))

    def batches(
        self, state: TrainState, split: str
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """Yield the predictions of each batch of this process.

        The devices compute the next batch meanwhile.

        Yields:
            Impression numbers int64 [B, N], whether each is a target bool [B, N], labels int8
            [B, N, A] and logits float32 [B, N, A].
        """
        plan = self.plan(split)
        process = self.program.process
        previous: tuple[np.ndarray, np.ndarray, np.ndarray, Any] | None = None
        for index, inputs in eval_batches(self.records, plan, self.config, process):
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
        tables = self.layout.unpack(split_tables(state.params)[1])
        apply = jit_apply(self.program, "next_item_queries")
        parts = []
        for index, inputs in eval_batches(
            self.records, self.plan(split), self.config, self.program.process
        ):
            with jax.set_mesh(self.mesh):
                query_BNE = local_rows(apply(state, self.program.shard_batch(inputs)))
            parts.append(previous_queries(index, inputs.batch, query_BNE))
        impression, query_nE = all_gather([np.concatenate(column) for column in zip(*parts)])
        return NextItemQueries(impression, query_nE, rows_VE=np.asarray(tables[table]))


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
    defaults.

    Args:
        run: run directory.
        assignments: assignments of `mesh.*`; see `restore`.
    """
    stage_run(run)
    config = load_config(run)
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


def gather_predictions(
    parts: Iterable[tuple[np.ndarray, np.ndarray, Any, Any]], actions: int
) -> Predictions:
    """Concatenate the predictions of batches and processes.

    Args:
        parts: result of `Evaluator.batches`.
        actions: number of actions, for a process without batches.
    """
    empty = (np.zeros(0, np.int64), np.zeros((0, actions), np.float32), np.zeros((0, actions), int))
    rows = [(i[t], local_rows(z)[t], np.asarray(y)[t]) for i, t, y, z in parts] or [empty]
    impression, logits, labels = all_gather([np.concatenate(c) for c in zip(*rows)])
    order = np.argsort(impression, kind="stable")
    return Predictions(impression[order], logits[order], labels[order])


def measure(
    predictions: Predictions,
    records: Records,
    config: Config,
    split: str,
    trained: Records | None = None,
) -> dict[str, Any]:
    """Compute all metrics of the predictions for a split.

    An action whose labels are all equal or all unknown has no NE and no AUC (NaN). Means are over
    the other actions, and `<split>/left_out` lists the action.

    Args:
        predictions: predictions for all targets of the split.
        records: prepared data.
        config: configuration of the run.
        split: train, validation or test.
        trained: the same data with the train split of the run, which defines cold items and
            members; None if `records` has it.

    Returns:
        Metrics by name. Each action has `<split>/<action>/` followed by `ne`, `auc`, `gauc`,
        `calibration`, `ece`, `ndcg` and `rate`, and the slices `cold_items/...` and
        `cold_members/...`. `<split>/ne` and `<split>/auc` are means over actions. If the data have
        true probabilities, `oracle/<split>/...` and `beats_oracle` are added, and
        `not_split_by_time` if the splits are parts of each member's history.

    Raises:
        BadInput: the split has no target.
    """
    if not len(predictions.impression):
        raise BadInput(f"the {split} split holds no target; choose other split boundaries")
    member, session, cold = _groups(
        predictions.impression, records, trained or records, config.eval.cold_below
    )
    out: dict[str, Any] = {f"{split}/impressions": len(member)}
    beats_oracle: list[bool] = []
    defined: list[str] = []  # actions with both labels
    left_out: list[str] = []

    # Metrics of each action, on all targets, on cold-start slices, and of the oracle.
    for a, action in enumerate(config.model.actions):
        known = predictions.labels[:, a] >= 0
        score, label = predictions.logits[known, a], predictions.labels[known, a]
        key = f"{split}/{metric_key(action)}"
        (defined if 0 < label.sum() < len(label) else left_out).append(action)
        out |= _named(key, _all_metrics(score, label, member[known], session[known]))
        for name, rows in cold.items():
            is_cold = rows[known]
            cold_label = label[is_cold]
            out[f"{key}/{name}/impressions"] = int(is_cold.sum())
            if 0 < cold_label.sum() < is_cold.sum():
                out[f"{key}/{name}/auc"] = metrics.auc(score[is_cold], cold_label)
                out[f"{key}/{name}/ne"] = metrics.normalized_entropy(score[is_cold], cold_label)
        if records.manifest.truth:
            truth = records.truth(action, predictions.impression[known]).astype(np.float64)
            oracle = np.log(truth) - np.log1p(-truth)
            of_oracle = _all_metrics(oracle, label, member[known], session[known])
            out |= _named(f"oracle/{key}", of_oracle)
            beats_oracle.append(_is_below_oracle(score, oracle, label))

    # Means over actions.
    for prefix in (split, f"oracle/{split}") if records.manifest.truth else (split,):
        for metric in ("ne", "auc"):
            values = [out[f"{prefix}/{metric_key(a)}/{metric}"] for a in defined]
            out[f"{prefix}/{metric}"] = float(np.mean(values)) if values else float("nan")
    if left_out:
        out[f"{split}/left_out"] = join_list(left_out)
    if beats_oracle:
        out["beats_oracle"] = any(beats_oracle)
    if records.manifest.split_per_member:
        out["not_split_by_time"] = True
    return out


MEASURES = ("ne", "auc", "gauc", "calibration", "ece", "ndcg", "rate")


def _all_metrics(
    score: np.ndarray, label: np.ndarray, member: np.ndarray, session: np.ndarray
) -> dict[str, float]:
    if not len(label):
        return dict.fromkeys(MEASURES, float("nan"))
    return {
        "ne": metrics.normalized_entropy(score, label),
        "auc": metrics.auc(score, label),
        "gauc": metrics.gauc(score, label, member),
        "calibration": metrics.calibration(score, label),
        "ece": metrics.expected_calibration_error(score, label),
        "ndcg": metrics.ndcg(score, label, session),
        "rate": float(label.mean()),
    }


def _named(prefix: str, values: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}/{k}": v for k, v in values.items()}


def _is_below_oracle(score: np.ndarray, oracle: np.ndarray, label: np.ndarray) -> bool:
    """Return whether the cross-entropy is significantly below the oracle's (paired).

    Args:
        score: logits of the model, [n].
        oracle: logits of the true probabilities, [n].
        label: 1 or 0, [n].
    """
    z = score.astype(np.float64)
    y = label.astype(np.float64)
    gap = (np.logaddexp(0, z) - z * y) - (np.logaddexp(0, oracle) - oracle * y)
    if not len(gap):
        return False
    error = gap.std() / np.sqrt(max(1, len(gap)))
    return bool(gap.mean() < -_LEAK_SIGMAS * error - 1e-12)


def _groups(
    impression: np.ndarray, records: Records, trained: Records, cold_below: int
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Return the member and session numbers of impressions, and masks of the cold-start slices."""
    member = np.searchsorted(records.offsets, impression, side="right") - 1
    session = records.take("session", impression).astype(np.int64)
    session += member * (int(session.max(initial=0)) + 1)
    cold = {"cold_members": trained.counts[member, 1] < cold_below}
    if "item_id" in records.manifest.columns:
        seen = trained.train_counts("item_id", records.feature("item_id", impression))
        cold["cold_items"] = seen < cold_below
    return member, session, cold
