"""Requests with NumPy batches of any size, on compiled operations of a model.

The operations come from a model in this process (`Scorer`) or from an artifact (`Artifact`). This
module and what it imports need no code of models.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ligr_jax.config import Config, ModelConfig, ScoringConfig
from ligr_jax.config.errors import require
from ligr_jax.data.batch import Batch
from ligr_jax.data.packing import fresh_targets
from ligr_jax.data.padding import padding_batch
from ligr_jax.data.post_row import require_post_row, with_default_post_row
from ligr_jax.data.schema import BadInput
from ligr_jax.data.unique_ids import UniqueIdMapper
from ligr_jax.serve.cache import Cache, grow_cache
from ligr_jax.serve.checks import check_candidates, check_histories, check_impressions
from ligr_jax.serve.split import Ranking

RowReader = Callable[[np.ndarray], np.ndarray]  # int [U] -> float32 [U, E]


class Operations(NamedTuple):
    """Compiled operations; `variables` is (dense parameters, batch statistics, rows).

    Attributes:
        encode: (variables, histories) -> cache.
        append: (variables, cache, impressions) -> cache.
        score: (variables, cache, candidates) -> point-wise logits [B, C, A].
        rank: (variables, cache, candidates, weights) -> ranking, with set-wise layers for K.
        session: (variables, cache, candidates, weights) -> ranking, with set-wise layers for all.
        positions: (variables, cache, candidates) -> point-wise logits [P, B, C, A] at the rows
            1..P of the post feature; only called for models with one.
    """

    encode: Callable[..., Any]
    append: Callable[..., Any]
    score: Callable[..., Any]
    rank: Callable[..., Any]
    session: Callable[..., Any]
    positions: Callable[..., Any]


class RequestScorer:
    """Encodes histories and scores candidates.

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
        scoring: ScoringConfig,
        operations: Operations,
    ) -> None:
        """
        Args:
            config: configuration of the run.
            dense: parameters without tables.
            stats: batch statistics; empty for models without any.
            tables: reads the rows of each table.
            scoring: settings.
            operations: compiled operations of the model.
        """
        self.config = config
        self.scoring = scoring
        self.capacity = self.scoring.impressions or config.data.seq_len // 2
        self.restart = self.capacity - fresh_targets(self.capacity, config.data.context)
        model = config.model
        weights = self.scoring.weights or (1.0,) * len(model.actions)
        require(
            len(weights) == len(model.actions),
            f"weights={weights} has {len(weights)} weights for {len(model.actions)} actions; give "
            f"one for each of {','.join(model.actions)}",
        )
        require_post_row(model, self.scoring.position, "position")
        self._weights = jnp.asarray(weights, jnp.float32)
        self._dense, self._stats = jax.device_put((dense, stats))
        self._tables = tables
        self._mapper = UniqueIdMapper(model, whole_batch=False)
        self._operations = operations

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
        cache: Cache = self._operations.encode(*self._inputs(histories, self._size(histories)))
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
        longer: Cache = self._operations.append(variables, cache, batch)
        return longer

    def score(self, cache: Cache, candidates: Batch) -> np.ndarray:
        """Return point-wise logits, float32 [B, c, A], which do not depend on other candidates.

        Args:
            cache: histories of the members.
            candidates: NumPy batch [B, c]; labels and weights are not used. The candidates of a
                row have one session, or -1 for the session after the newest one; a time of NaN
                stands for that of the newest impression. Row 0 of a post feature stands for
                `ScoringConfig.position`. In padding, at the end of a row, member is 0.

        Raises:
            BadInput: the batch does not fit the model or the cache.
        """
        inputs = self._candidates(cache, candidates)
        logits_BCA = self._operations.score(inputs[0], cache, inputs[1])
        return np.asarray(logits_BCA)[:, : _width(candidates)]

    def score_positions(self, cache: Cache, candidates: Batch) -> np.ndarray:
        """Return the logits of `score` at every row of the post feature, float32 [B, c, P, A].

        The history and the candidates go through the layers once; only the heads differ.

        Args:
            cache, candidates: as in `score`; the row of the post feature is not used.

        Returns:
            Logits by row 1..P, e.g. by bucket of the display position.

        Raises:
            BadInput: the model has no post feature, or as in `score`.
        """
        if not self.model.post_feature:
            raise BadInput("the model has no feature with post=true; call score")
        inputs = self._candidates(cache, candidates)
        logits_PBCA = np.asarray(self._operations.positions(inputs[0], cache, inputs[1]))
        return np.moveaxis(logits_PBCA[:, :, : _width(candidates)], 0, 2)

    def rank(self, cache: Cache, candidates: Batch) -> Ranking:
        """Return the ranking of candidates, with NumPy arrays [B, c]; see `ranked`.

        Arguments and errors are those of `score`.
        """
        inputs = self._candidates(cache, candidates)
        ranking: Ranking = self._operations.rank(inputs[0], cache, inputs[1], self._weights)
        count = _width(candidates)
        # Padding is last in the order, so the first places hold the given candidates.
        result: Ranking = jax.tree.map(lambda x: np.asarray(x)[:, :count], ranking)
        return result

    def score_session(self, cache: Cache, candidates: Batch) -> np.ndarray:
        """Return logits with set-wise layers for all candidates, float32 [B, c, A].

        These are the logits of training for a session that consists of the candidates. Arguments
        and errors are those of `score`.
        """
        inputs = self._candidates(cache, candidates)
        ranking: Ranking = self._operations.session(inputs[0], cache, inputs[1], self._weights)
        return np.asarray(ranking.logits_BCA)[:, : _width(candidates)]

    def replaced(
        self, operations: Operations, tables: Mapping[str, RowReader] | None = None
    ) -> "RequestScorer":
        """Return a scorer with other operations and, if given, other rows of tables."""
        return RequestScorer(
            self.config, self._dense, self._stats, tables or self._tables, self.scoring, operations
        )

    def _candidates(self, cache: Cache, candidates: Batch) -> tuple[Any, Batch]:
        check_candidates(candidates, cache, self.model)
        candidates = with_default_post_row(candidates, self.model, self.scoring.position)
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
        return (self._dense, self._stats, rows), mapped.batch


def padded_to(batch: Batch, size: int, model: ModelConfig) -> Batch:
    """Return a NumPy batch with padding at the end of each row, up to `size` impressions.

    The result has the features of the model only, and the types of the data pipeline.
    """
    padding = padding_batch(model, len(batch.member), size - _width(batch))

    def joined(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (np.concatenate([x, y], axis=1) if y.size else x).astype(y.dtype, copy=False)

    def joined_all(x: Mapping[str, Any], y: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: joined(x[name], padding) for name, padding in y.items()}

    return Batch(
        member=joined(batch.member, padding.member),
        session=joined(batch.session, padding.session),
        time=joined(batch.time, padding.time),
        ids=joined_all(batch.ids, padding.ids),
        numeric=joined_all(batch.numeric, padding.numeric),
        vectors=joined_all(batch.vectors, padding.vectors),
        labels=joined(batch.labels, padding.labels),
        weight=joined(batch.weight, padding.weight),
    )


def _width(batch: Batch) -> int:
    result: int = batch.member.shape[1]
    return result
