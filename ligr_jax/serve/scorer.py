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

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ligr_jax.config import Config, ModelConfig, ScoringConfig
from ligr_jax.config.errors import require
from ligr_jax.data.batch import Batch
from ligr_jax.data.packing import fresh_targets
from ligr_jax.data.padding import padding_batch
from ligr_jax.data.unique_ids import UniqueIdMapper
from ligr_jax.nn.models import make_model
from ligr_jax.nn.serving import Scores
from ligr_jax.serve.cache import Cache, grow_cache
from ligr_jax.serve.checks import check_candidates, check_histories, check_impressions
from ligr_jax.serve.functions import (
    append_history,
    encode_history,
    rank_candidates,
    score_candidates,
    serving_variables,
)
from ligr_jax.serve.split import Ranking
from ligr_jax.store.mirror import local_path
from ligr_jax.train.evaluate import config_here, restore_state
from ligr_jax.train.optimizer import split_tables
from ligr_jax.train.program import Program

RowReader = Callable[[np.ndarray], np.ndarray]  # int [U] -> float32 [U, E]


class Scorer:
    """Encodes histories and scores candidates with a trained model.

    Each operation is compiled once for each size of its arrays (`ScoringConfig.smallest`), and for
    each number of rows.

    Attributes:
        config: configuration of the run.
        scoring: how candidates are ranked, and sizes of arrays.
        capacity: largest number of impressions of a cache.
        restart: number of newest impressions to encode again when a cache has no room.
    """

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
        self.config = config
        self.scoring = scoring or ScoringConfig()
        self.capacity = self.scoring.impressions or config.data.seq_len // 2
        self.restart = self.capacity - fresh_targets(self.capacity, config.data.context)
        model = config.model
        weights = self.scoring.weights or (1.0,) * len(model.actions)
        require(
            len(weights) == len(model.actions),
            f"weights={weights} has {len(weights)} weights for {len(model.actions)} actions; give "
            f"one for each of {','.join(model.actions)}",
        )
        self._weights = jnp.asarray(weights, jnp.float32)
        self._dense, self._stats = jax.device_put((dense, stats))
        self._tables = tables
        self._mapper = UniqueIdMapper(model, whole_batch=False)
        module = make_model(model)
        self._encode = jax.jit(partial(encode_history, module))
        self._append = jax.jit(partial(append_history, module), donate_argnums=1)
        self._score = jax.jit(partial(score_candidates, module))
        self._rank = jax.jit(partial(rank_candidates, module), static_argnames="top")

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

    @property
    def model(self) -> ModelConfig:
        """Configuration of the model."""
        return self.config.model

    def encode(self, histories: Batch) -> Cache:
        """Encode histories, one member per row, oldest impression first.

        Args:
            histories: NumPy batch [B, n] with n <= `capacity`; a row may be empty.

        Raises:
            BadInput: the batch does not fit the model, or is too long.
        """
        check_histories(histories, self.model, self.capacity)
        cache: Cache = self._encode(*self._inputs(histories, self._size(histories)))
        return cache

    def room(self, cache: Cache) -> np.ndarray:
        """Return how many impressions can be appended to each row, int [B]."""
        return self.capacity - np.asarray(cache.length)

    def append(self, cache: Cache, impressions: Batch) -> Cache:
        """Return the cache with new impressions, whose actions are known.

        Args:
            cache: consumed: its arrays are reused for the result.
            impressions: NumPy batch [B, n], for the same members; a row may be empty. Sessions and
                times are counted as in the histories: an impression of the newest session has its
                number, the next session the number after it.

        Raises:
            CacheFull: a row has less `room`; encode its newest `restart` impressions.
            BadInput: the batch does not fit the model or the cache.
        """
        check_impressions(impressions, cache, self.model, self.capacity)
        variables, batch = self._inputs(impressions, self.scoring.bucket(_width(impressions)))
        needed = int((np.asarray(cache.length) + (impressions.member > 0).sum(1)).max(initial=0))
        if needed > cache.size:
            cache = grow_cache(cache, min(self.scoring.bucket(needed), self.capacity))
        longer: Cache = self._append(variables, cache, batch)
        return longer

    def score(self, cache: Cache, candidates: Batch) -> np.ndarray:
        """Return point-wise logits, float32 [B, c, A], which do not depend on other candidates.

        Args:
            cache: histories of the members.
            candidates: NumPy batch [B, c]; labels and weights are not used. The candidates of a
                row have one session, or -1 for the session after the newest one; a time of NaN
                stands for that of the newest impression. In padding, at the end of a row, member
                is 0.

        Raises:
            BadInput: the batch does not fit the model or the cache.
        """
        inputs = self._candidates(cache, candidates)
        scores: Scores = self._score(inputs[0], cache, inputs[1])
        return np.asarray(scores.logits_BCA)[:, : _width(candidates)]

    def rank(self, cache: Cache, candidates: Batch) -> Ranking:
        """Return the ranking of candidates, with NumPy arrays [B, c]; see `ranked`.

        Arguments and errors are those of `score`.
        """
        inputs = self._candidates(cache, candidates)
        ranking: Ranking = self._rank(
            inputs[0], cache, inputs[1], top=self.scoring.set_top, weights=self._weights
        )
        count = _width(candidates)
        # Padding is last in the order, so the first places hold the given candidates.
        result: Ranking = jax.tree.map(lambda x: np.asarray(x)[:, :count], ranking)
        return result

    def _candidates(self, cache: Cache, candidates: Batch) -> tuple[Any, Batch]:
        check_candidates(candidates, cache, self.model)
        return self._inputs(candidates, self.scoring.bucket(_width(candidates)))

    def _size(self, histories: Batch) -> int:
        return min(self.scoring.bucket(_width(histories)), self.capacity)

    def _inputs(self, batch: Batch, size: int) -> tuple[Any, Batch]:
        """Return the model's variables for a batch, and the batch padded to `size` impressions."""
        mapped = self._mapper(padded_to(batch, size, self.model))
        rows = {
            table: self._tables[table](np.minimum(ids.local, self.model.tables[table].rows - 1))
            for table, ids in mapped.unique_ids.items()
        }
        return serving_variables(self._dense, self._stats, rows), mapped.batch


def rows_of(table: np.ndarray) -> RowReader:
    """Return a reader of the rows of a table [V, E] in memory."""

    def read(ids: np.ndarray) -> np.ndarray:
        result: np.ndarray = table[ids]
        return result

    return read


def padded_to(batch: Batch, size: int, model: ModelConfig) -> Batch:
    """Return a NumPy batch with padding at the end of each row, up to `size` impressions."""
    missing = size - _width(batch)
    if not missing:
        return batch
    padding = padding_batch(model, len(batch.member), missing)
    padded: Batch = jax.tree.map(lambda x, y: np.concatenate([x, y], axis=1), batch, padding)
    return padded


def _width(batch: Batch) -> int:
    result: int = batch.member.shape[1]
    return result
