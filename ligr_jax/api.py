"""Train and use models from Python, without the command line.

import ligr_jax

model = ligr_jax.fit_model(["model.depth=2", "train.steps=500"], "data/prepared", "runs/first")
model = ligr_jax.load_run("runs/first")                      # later, in another program
model.config.model.actions                                   # ("click", "like")
prediction = model.predict(batch)                            # batch: a `ligr_jax.Batch`
prediction.probabilities["click"]                            # float32 [B, N]
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ligr_jax.config import Config, ConfigError
from ligr_jax.data.batch import Batch
from ligr_jax.data.manifest import load_manifest
from ligr_jax.data.post_row import with_default_post_row
from ligr_jax.data.unique_ids import UniqueIdMapper
from ligr_jax.runs.directory import load_summary
from ligr_jax.runs.staged import stage_run
from ligr_jax.scaling.ladder import configure
from ligr_jax.store.mirror import local_path
from ligr_jax.train.evaluate import config_here, jit_apply, restore_state
from ligr_jax.train.loop import train
from ligr_jax.train.prediction_file import probabilities_of
from ligr_jax.train.program import Program


@dataclass(frozen=True)
class BatchPrediction:
    """Predictions for every impression of a batch, by action.

    Attributes:
        logits: float32 [B, N] by action. Values in padding have no meaning.
        probabilities: float32 [B, N] by action, the sigmoid of the logits.
    """

    logits: dict[str, np.ndarray]
    probabilities: dict[str, np.ndarray]


class TrainedModel:
    """A trained run, ready to predict; create it with `load_run` or `fit_model`.

    Attributes:
        config: configuration of the run; `mesh` is the one that the model is on here.
        step: number of the checkpoint's last step.
        summary: final numbers of the run, e.g. `test/ne`; empty if it is not finished.
    """

    def __init__(
        self, config: Config, program: Program, state: Any, summary: dict[str, Any]
    ) -> None:
        self.config = config
        self.step = int(state.step)
        self.summary = summary
        self._program, self._state = program, state
        self._logits = jit_apply(program)
        self._unique_ids = UniqueIdMapper(config.model, program.mesh.size, whole_batch=False)

    def predict(self, batch: Batch) -> BatchPrediction:
        """Return logits and probabilities of every impression of a batch of NumPy arrays.

        Impressions without a value of the post feature (row 0) are scored at `eval.position`.
        The first call with a batch of a new shape compiles the model.

        Raises:
            ConfigError: this is one of several processes.
            BadInput: the batch does not fit the model; see `Batch.validate`.
        """
        if jax.process_count() > 1:
            raise ConfigError(
                f"this is one of {jax.process_count()} processes; predict a batch in a single "
                "process, or a whole split with `ligr predict`"
            )
        batch.validate(self.config.model)
        rows = len(batch.member)
        # The rows are sharded over the devices; copies of the last row fill the last shard.
        filled = -(-rows // self._program.mesh.size) * self._program.mesh.size
        index = np.minimum(np.arange(filled), rows - 1)
        position = self.config.eval.position
        batch = with_default_post_row(batch, self.config.model, position)
        whole = jax.tree.map(lambda x: np.asarray(x)[index], batch)
        with jax.set_mesh(self._program.mesh):
            logits_BNA = self._logits(
                self._state, self._program.shard_batch(self._unique_ids(whole))
            )
        logits_BNA = np.asarray(logits_BNA)[:rows].astype(np.float32)
        logits = {name: logits_BNA[..., a] for a, name in enumerate(self.config.model.actions)}
        return BatchPrediction(logits, {name: probabilities_of(x) for name, x in logits.items()})


def load_run(
    run: str | Path, step: int | None = None, assignments: Sequence[str] = ()
) -> TrainedModel:
    """Restore a checkpoint of a run directory; the data of the run are not needed.

    Args:
        run: directory that `ligr train` or `fit_model` wrote.
        step: of the checkpoint; None: the newest.
        assignments: of `mesh.*`, e.g. `mesh.model=4`. By default the mesh is that of the run if
            there are as many devices, and otherwise one over all devices.

    Raises:
        ConfigError: the directory holds no run, or the run has no checkpoint.
        CheckpointError: the checkpoint is damaged, cannot be read or does not fit config.json.
    """
    run = local_path(run)
    stage_run(run)
    config = config_here(run, assignments)
    program = Program(config)
    return TrainedModel(config, program, restore_state(run, program, step), load_summary(run) or {})


def fit_model(config: Config | Iterable[str], data: str | Path, out: str | Path) -> TrainedModel:
    """Train a model as `ligr train` does, or continue a run that was interrupted; load it.

    Progress is logged; see `ligr_jax.messages`. A signal (Ctrl-C, SIGTERM) saves the run and raises
    `SystemExit`; the same call continues it.

    Args:
        config: assignments as on the command line, e.g. `["preset=demo-4", "train.seed=1"]`, or a
            `Config` made for these data with `ligr_jax.configure`.
        data: directory that `ligr prepare` wrote.
        out: run directory, created if needed.

    Raises:
        ConfigError: the configuration does not fit the data, or `out` holds another run.
        Busy: another process is training this run.
        TrainingDiverged: `train.max_bad_steps` steps in a row were not finite.
    """
    data, out = local_path(data), local_path(out)
    if not isinstance(config, Config):
        config = configure(load_manifest(data), data, list(config))
    train(config, out)
    return load_run(out)
