"""Residual k-means: Lloyd's iterations over the whole corpus, level by level. No network."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ligr_jax.parallel.mesh import batch_sharding, replicated, to_mesh
from ligr_jax.sid.config import SidConfig
from ligr_jax.sid.corpus import Corpus
from ligr_jax.sid.kmeans import INIT_ROWS, kmeans, means, nearest_of, sums_and_counts
from ligr_jax.sid.mesh import data_mesh

ROWS = 1 << 13  # rows read at once


class RQKMeansTraining:
    """Training of residual k-means. See `ligr_jax.sid.train.SidTraining`.

    The state is the codebooks [N, K, W]; levels not yet trained are 0.
    """

    log_every = 1

    def __init__(self, config: SidConfig, corpus: Corpus, mean: np.ndarray, scale: float) -> None:
        self.config, self.corpus, self.mean, self.scale = config, corpus, mean, scale
        self.mesh = data_mesh(ROWS)
        self.key = jax.random.key(config.seed)

    def fresh(self) -> jax.Array:
        shape = (self.config.levels, self.config.codes, self.corpus.width)
        return self.put(np.zeros(shape, np.float32))

    def put(self, state: Any) -> jax.Array:
        result: jax.Array = to_mesh(state, replicated(self.mesh))
        return result

    def update(self, number: int, state: jax.Array) -> tuple[jax.Array, Mapping[str, Any]]:
        """Run a pass over the corpus; the first pass of a level starts from k-means of a sample."""
        level, iteration = divmod(number - 1, self.config.steps)
        k = self.config.codes
        if iteration == 0:
            sample = self._sample(INIT_ROWS * k, number, state, level)
            key = jax.random.fold_in(self.key, number)
            state = state.at[level].set(kmeans(sample, k, key))
        totals: Any = 0.0, 0.0, 0.0
        for x, weight in self._batches():
            sums = _sums(to_mesh(x, batch_sharding(self.mesh)), weight, state, level)
            # The sums are added on the host in float64. On a CPU this must wait for each batch:
            # concurrent programs with collectives starve each other of threads.
            totals = [a + np.float64(b) for a, b in zip(totals, jax.device_get(sums))]
        sums, counts, error = totals
        others = jnp.resize(self._sample(k, number, state, level), (k, self.corpus.width))
        codebook = means(sums, counts, jax.device_get(others))
        share = error / len(self.corpus) / self.corpus.width
        metrics = {"level": level + 1, "error": share, "empty": (counts == 0).sum()}
        return state.at[level].set(codebook), metrics

    def _sample(self, rows: int, number: int, codebooks: jax.Array, level: int) -> jax.Array:
        """Return the residuals of `rows` random items, or of all items."""
        rng = np.random.default_rng([self.config.seed, number])
        places = rng.permutation(len(self.corpus))[:rows]
        x = self._standard(self.corpus.take(np.sort(places)))
        result: jax.Array = _left_over(jnp.asarray(x), codebooks, level)
        return result

    def _batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield standardized vectors, and weights: 1 for items, 0 for padding of the last batch."""
        for _, x in self.corpus.batches(ROWS):
            full, weight = np.zeros((ROWS, x.shape[1]), np.float32), np.zeros(ROWS, np.float32)
            full[: len(x)], weight[: len(x)] = self._standard(x), 1
            yield full, weight

    def _standard(self, x: np.ndarray) -> np.ndarray:
        result: np.ndarray = ((x - self.mean) / self.scale).astype(np.float32)
        return result

    def arrays(self, state: jax.Array) -> dict[str, np.ndarray]:
        return {"codebooks": jax.device_get(state)}


@partial(jax.jit, static_argnums=3)
def _sums(
    x: jax.Array, weight: jax.Array, codebooks: jax.Array, level: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    return sums_and_counts(_left_over(x, codebooks, level), weight, codebooks[level])


@partial(jax.jit, static_argnums=2)
def _left_over(x: jax.Array, codebooks: jax.Array, level: int) -> jax.Array:
    """Return the residual of x [B, W] after the levels before `level`."""
    for codebook in codebooks[:level]:
        x = x - codebook[nearest_of(x, codebook)]
    return x
