"""k-means by Lloyd's algorithm on a sample in memory, and residual k-means."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ligr_jax.sid.quantize import squared_distances

Array = jax.Array | np.ndarray
INIT_ROWS = 32  # rows per code in the sample that initializes a codebook
INIT_ITERATIONS = 10
_BLOCK = 2**12  # rows whose distances to all centroids are computed at once


def kmeans(x: jax.Array, k: int, key: jax.Array, iterations: int = INIT_ITERATIONS) -> jax.Array:
    """Cluster x by Lloyd's algorithm, starting from k random rows.

    A cluster without rows is moved to another random row.

    Args:
        x: [n, d].
        k: number of clusters.
        key: random key.
        iterations: number of iterations.

    Returns:
        Centroids [k, d].
    """
    n, d = x.shape
    start, refill = jax.random.split(key)
    block = min(n, _BLOCK)
    blocks = jnp.pad(x, ((0, -n % block), (0, 0))).reshape(-1, block, d)
    weight = (jnp.arange(blocks.size // d) < n).astype(x.dtype).reshape(-1, block)

    def lloyd(i: jax.Array, centroids: jax.Array) -> jax.Array:
        def add(total: Any, part: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, sums_and_counts(*part, centroids)), None

        nothing = jnp.zeros((k, d)), jnp.zeros(k), jnp.zeros(())
        (sums, counts, _), _ = jax.lax.scan(add, nothing, (blocks, weight))
        others = x[jax.random.choice(jax.random.fold_in(refill, i), n, (k,), replace=n < k)]
        return means(sums, counts, others)

    first = x[jax.random.choice(start, n, (k,), replace=n < k)]
    result: jax.Array = jax.lax.fori_loop(0, iterations, lloyd, first)
    return result


def residual_kmeans(z: jax.Array, levels: int, k: int, key: jax.Array) -> jax.Array:
    """Return codebooks [levels, k, d]: k-means of z [n, d], then of the residuals of each level."""
    codebooks = []
    for level in range(levels):
        codebooks.append(kmeans(z, k, jax.random.fold_in(key, level)))
        book = codebooks[-1]
        z = z - jax.lax.map(lambda x, e=book: e[nearest_of(x[None], e)[0]], z, batch_size=_BLOCK)
    return jnp.stack(codebooks)


def nearest_of(x: jax.Array, centroids: jax.Array) -> jax.Array:
    """Return the index of the nearest centroid of each row of x, [B]."""
    return jnp.argmin(squared_distances(x, centroids), axis=1)


def sums_and_counts(
    x: jax.Array, weight: jax.Array, centroids: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return per centroid the sum and the number of its rows, and the total squared distance.

    Args:
        x: [B, d].
        weight: [B], 0 for padding rows.
        centroids: [k, d].
    """
    distances = squared_distances(x, centroids)
    nearest = jnp.argmin(distances, axis=1)
    k = len(centroids)
    return (
        jax.ops.segment_sum(x * weight[:, None], nearest, k),
        jax.ops.segment_sum(weight, nearest, k),
        (weight * distances.min(1)).sum(),
    )


def means(sums: Array, counts: Array, others: Array) -> jax.Array:
    """Return sums / counts; rows of `others` where the count is zero."""
    return jnp.where(counts[:, None] > 0, sums / jnp.maximum(counts, 1)[:, None], others)
