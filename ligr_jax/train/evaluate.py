"""Evaluation of a split: a prediction for every target impression, then exact metrics of them all.

Predictions are one table; hosts and batches merge by concatenation, so numbers do not depend on how
the split was cut. Where the log carries true probabilities, the oracle that knows them is measured
on the same rows: no honest model has a lower cross-entropy, up to noise.
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
from ligr_jax.data.packing import PackingPlan
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
from ligr_jax.tables.exchange import gather_rows
from ligr_jax.tables.layout import Layout
from ligr_jax.tables.table import ROWS, TABLES
from ligr_jax.train.checkpoint import Checkpoints
from ligr_jax.train.data import open_verified
from ligr_jax.train.optimizer import split_tables
from ligr_jax.train.preflight import has_kernel
from ligr_jax.train.program import Program
from ligr_jax.train.state import TrainState

_log = logging.getLogger(__name__)

# A model this many standard errors below the oracle's cross-entropy has read an answer.
_LEAK_SIGMAS = 4.0


@dataclass(frozen=True)
class Predictions:
    """A split's targets: impression number int64 [n], logits float32 [n, A], labels int8 [n, A]."""

    impression: np.ndarray
    logits: np.ndarray
    labels: np.ndarray


def jit_logits(program: Program) -> Any:
    """Return the compiled function `(state, inputs) -> logits [B, N, A]`."""
    layout, model = program.layout, program.model

    def logits(state: TrainState, inputs: MappedBatch) -> Any:
        dense, tables = split_tables(state.params)
        local = {table: ids.local for table, ids in inputs.unique_ids.items()}
        rows_nUE = gather_rows(layout, tables, local)
        variables = {"params": dense, STATISTICS: state.stats, ROWS: {TABLES: rows_nUE}}
        return model.apply(variables, inputs.batch)

    return jax.jit(logits)


class Evaluator:
    """Measures a state on a split, its batch statistics frozen; compiles once, plans once."""

    def __init__(self, program: Program, records: Records) -> None:
        self.records, self.config, self._program = records, program.config, program
        self.model = program.model
        self.apply = jit_logits(program)
        self._plans: dict[str, PackingPlan] = {}

    def plan(self, split: str) -> PackingPlan:
        if split not in self._plans:
            self._plans[split] = plan_for(self.records, self.config, split)
        return self._plans[split]

    @property
    def layout(self) -> Layout:
        return self._program.layout

    def __call__(
        self, state: TrainState, split: str, progress: Callable[[int, int], None] | None = None
    ) -> dict[str, Any]:
        """Metrics of `split`, flat: `<split>/<action>/ne`, `oracle/<split>/...`, ..."""
        predictions = self.predict(state, split, progress)
        return measure(predictions, self.records, self.config, split)

    def predict(
        self, state: TrainState, split: str, progress: Callable[[int, int], None] | None = None
    ) -> Predictions:
        """Logits of every target of `split`, ordered by impression number."""
        parts = []
        for part in self.batches(state, split):
            parts.append(part)
            if progress:
                progress(len(parts), self.batch_count(split, len(part[0])))
        return gather(parts, len(self.config.model.actions))

    def batch_count(self, split: str, rows: int) -> int:
        """Return the number of batches of this process, each of `rows` rows."""
        processes: int = jax.process_count()
        return -(-len(self.plan(split)) // (rows * processes))

    def batches(
        self, state: TrainState, split: str
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """Yield what each batch of this process gives, while the devices compute the next one.

        Yields:
            Impression numbers int64 [B, N], whether each is a target bool [B, N], labels int8
            [B, N, A] and logits float32 [B, N, A].
        """
        plan, process = self.plan(split), self._program.process
        before: tuple[np.ndarray, np.ndarray, np.ndarray, Any] | None = None
        for index, inputs in eval_batches(self.records, plan, self.config, process):
            with jax.set_mesh(self._program.mesh):
                logits = self.apply(state, self._program.shard_batch(inputs))
            if before:
                yield (*before[:3], local_rows(before[3]))
            before = index, inputs.batch.weight > 0, np.asarray(inputs.batch.labels), logits
        if before:
            yield (*before[:3], local_rows(before[3]))


def evaluate_run(
    run: Path,
    split: str,
    data: Path | None = None,
    batch: int = 0,
    assignments: Sequence[str] = (),
    step: int | None = None,
) -> dict[str, Any]:
    """Metrics of the newest checkpoint of a run directory on `split`; arguments as in `restore`."""
    evaluator, state = restore(run, data, batch, assignments, step)
    return evaluator(state, split, log_progress(_log, "batch"))


def restore(
    run: Path,
    data: Path | None = None,
    batch: int = 0,
    assignments: Sequence[str] = (),
    step: int | None = None,
) -> tuple[Evaluator, TrainState]:
    """The newest checkpoint of a run directory, and what measures it.

    Args:
        data: prepared data, default where the run had it; it must be the same data.
        batch: rows at a time, default the run's.
        assignments: of `mesh.*`, e.g. `mesh.model=4`; by default the mesh is the run's, where there
            are as many devices.
        step: of the checkpoint, default the newest.

    Raises:
        ConfigError: the run has no checkpoint, or its data are not there.
        CheckpointError: the checkpoint is damaged, cannot be read or does not fit config.json.
    """
    config = config_here(run, assignments)
    records = open_verified(data_directory(run, config, data), config.data.edges)
    if records.digest != config.data.digest:
        raise ConfigError(
            f"{records.directory} has digest {records.digest}, the run was trained on "
            f"{config.data.digest}; pass the data it was trained on with --data"
        )
    changed = dataclasses.replace(config.eval, batch=batch or config.eval.batch)
    config = dataclasses.replace(config, eval=changed)
    program = Program(config)
    return Evaluator(program, records), restore_state(run, program, step)


def config_here(run: Path, assignments: Sequence[str] = ()) -> Config:
    """Return the configuration of a run, with what fits the devices of this process.

    A mesh that needs more devices, and a kernel for devices of another kind, are replaced by the
    defaults.

    Args:
        run: run directory.
        assignments: of `mesh.*`; see `restore`.
    """
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
    """Return the state of a checkpoint of `run` on the mesh of `program`; reads no data.

    Raises:
        ConfigError: the run has no checkpoint.
        CheckpointError: the checkpoint is damaged, cannot be read or does not fit config.json.
    """
    checkpoints = Checkpoints(RunFiles(run).checkpoints, program.config.train.keep, program.layout)
    restored = checkpoints.read(program.abstract_state(), step)
    if restored is None:
        raise ConfigError(f"{run} has no checkpoint; train it first")
    return restored[0]


def gather(parts: Iterable[tuple[np.ndarray, np.ndarray, Any, Any]], actions: int) -> Predictions:
    empty = (np.zeros(0, np.int64), np.zeros((0, actions), np.float32), np.zeros((0, actions), int))
    rows = [(i[t], local_rows(z)[t], np.asarray(y)[t]) for i, t, y, z in parts] or [empty]
    impression, logits, labels = all_gather([np.concatenate(c) for c in zip(*rows)])
    order = np.argsort(impression, kind="stable")
    return Predictions(impression[order], logits[order], labels[order])


def measure(
    predictions: Predictions, records: Records, config: Config, split: str
) -> dict[str, Any]:
    """All metrics of a table of predictions.

    Per action: `ne`, `auc`, `gauc`, `calibration`, `ece`, `ndcg`, `rate`, and for the cold-start
    slices `cold_items/...`, `cold_members/...`; `<split>/ne` and `<split>/auc` are means over
    actions. With true probabilities, `oracle/<split>/...` and `beats_oracle`.

    An action whose labels are all equal or all unknown has no NE and no AUC (NaN). Means are over
    the others, and `<split>/left_out` lists it.

    Raises:
        BadInput: the split holds no target.
    """
    if not len(predictions.impression):
        raise BadInput(f"the {split} split holds no target; choose other split boundaries")
    member, session, cold = _groups(predictions.impression, records, config.eval.cold_below)
    out: dict[str, Any] = {f"{split}/impressions": len(member)}
    oracle_wins = []
    kept, left_out = list[str](), list[str]()
    for a, action in enumerate(config.model.actions):
        known = predictions.labels[:, a] >= 0
        score, label = predictions.logits[known, a], predictions.labels[known, a]
        key = f"{split}/{metric_key(action)}"
        (kept if 0 < label.sum() < len(label) else left_out).append(action)
        out |= _named(key, _all_metrics(score, label, member[known], session[known]))
        for name, rows in cold.items():
            here = rows[known]
            out[f"{key}/{name}/impressions"] = int(here.sum())
            if 0 < label[here].sum() < here.sum():
                out[f"{key}/{name}/auc"] = metrics.auc(score[here], label[here])
                out[f"{key}/{name}/ne"] = metrics.normalized_entropy(score[here], label[here])
        if records.manifest.truth:
            truth = records.truth(action, predictions.impression[known]).astype(np.float64)
            best = np.log(truth) - np.log1p(-truth)
            perfect = _all_metrics(best, label, member[known], session[known])
            out |= _named(f"oracle/{key}", perfect)
            oracle_wins.append(_beaten(score, best, label))
    for prefix in (split, f"oracle/{split}") if records.manifest.truth else (split,):
        for metric in ("ne", "auc"):
            values = [out[f"{prefix}/{metric_key(a)}/{metric}"] for a in kept]
            out[f"{prefix}/{metric}"] = float(np.mean(values)) if values else float("nan")
    if left_out:
        out[f"{split}/left_out"] = join_list(left_out)
    if oracle_wins:
        out["beats_oracle"] = any(oracle_wins)
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


def _beaten(score: np.ndarray, truth: np.ndarray, label: np.ndarray) -> bool:
    """Whether the model's cross-entropy lies below the oracle's by more than chance (paired)."""
    z, t, y = score.astype(np.float64), truth, label.astype(np.float64)
    gap = (np.logaddexp(0, z) - z * y) - (np.logaddexp(0, t) - t * y)
    if not len(gap):
        return False
    error = gap.std() / np.sqrt(max(1, len(gap)))
    return bool(gap.mean() < -_LEAK_SIGMAS * error - 1e-12)


def _groups(
    impression: np.ndarray, records: Records, cold_below: int
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Member and session numbers of impressions, and masks of the cold-start slices."""
    member = np.searchsorted(records.offsets, impression, side="right") - 1
    session = records.take("session", impression).astype(np.int64)
    session += member * (int(session.max(initial=0)) + 1)
    cold = {"cold_members": records.counts[member, 1] < cold_below}
    if "item_id" in records.manifest.columns:
        seen = records.train_counts("item_id", records.feature("item_id", impression))
        cold["cold_items"] = seen < cold_below
    return member, session, cold
