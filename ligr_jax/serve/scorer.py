"""`Scorer`: scores of a trained run, with NumPy batches of any size.

    scorer = Scorer.from_run("runs/first")
    cache = scorer.encode(histories)                   # Batch [B, n], one member per row
    scorer.rank(cache, candidates).order_BC            # Batch [B, c]; best candidate first
    cache = scorer.append(cache, new_impressions)      # when their actions are known

Truncation. A cache holds at most `capacity` impressions, those of a training row. In training, a
window that is not the member's first has at least `restart` impressions before its targets
(`ligr_jax.data.packing.cut_windows`). Serving does the same: if a cache has no room, encode the
member's newest `restart` impressions again, with sessions and times counted from the oldest of
them. The logits are then those that evaluation gives for the window that starts there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ligr_jax.config import Config, ScoringConfig
from ligr_jax.nn.models import make_model
from ligr_jax.serve.operations import compiled_operations
from ligr_jax.serve.request_scorer import RequestScorer, RowReader
from ligr_jax.store.mirror import local_path
from ligr_jax.train.evaluate import config_here, restore_state
from ligr_jax.train.optimizer import split_tables
from ligr_jax.train.program import Program


class Scorer(RequestScorer):
    """Encodes histories and scores candidates with a trained model."""

    def __init__(
        self,
        config: Config,
        dense: Any,
        stats: Any,
        tables: Mapping[str, RowReader],
        scoring: ScoringConfig | None = None,
    ) -> None:
        """
        Args:
            config: configuration of the run.
            dense: parameters without tables.
            stats: batch statistics; empty for models without any.
            tables: reads the rows of each table.
            scoring: settings; None for the defaults.
        """
        scoring = scoring or ScoringConfig()
        operations = compiled_operations(make_model(config.model), scoring.set_top)
        super().__init__(config, dense, stats, tables, scoring, operations)

    @classmethod
    def from_run(
        cls, run: str | Path, step: int | None = None, scoring: ScoringConfig | None = None
    ) -> "Scorer":
        """Restore a checkpoint of a run; its data are not needed.

        Args:
            run: run directory.
            step: step of the checkpoint; None for the newest.
            scoring: settings; None for the defaults.

        Raises:
            ConfigError: the directory holds no run, or the run has no checkpoint.
            CheckpointError: the checkpoint is damaged, cannot be read or does not fit config.json.
        """
        run = local_path(run)
        config = config_here(run)
        program = Program(config)
        state = restore_state(run, program, step)
        params, stats = jax.device_get((state.params, state.stats))
        dense, stored = split_tables(params)
        tables = program.layout.unpack(stored)
        return cls(config, dense, stats, {t: rows_of(x) for t, x in tables.items()}, scoring)


def rows_of(table: np.ndarray) -> RowReader:
    """Return a reader of the rows of a table [V, E] in memory."""

    def read(ids: np.ndarray) -> np.ndarray:
        result: np.ndarray = table[ids]
        return result

    return read
