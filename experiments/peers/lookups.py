"""Ids and gradients for the race of tables: the same arrays for both sides."""

import numpy as np

WIDTH = 32
BATCHES = 4  # that a side repeats


def lookups(law: str, rows: int, count: int) -> list[np.ndarray]:
    """Return the ids of each batch, int64 [count].

    `zipf` has exponent 1; its most frequent ids are spread over the V rows.
    """
    rng = np.random.default_rng(0)
    if law == "uniform":
        return [rng.integers(0, rows, count) for _ in range(BATCHES)]
    ranks = [np.floor(rows ** rng.random(count)).astype(np.int64) - 1 for _ in range(BATCHES)]
    return [rank * 2_654_435_761 % rows for rank in ranks]


def gradient(count: int) -> np.ndarray:
    """Return the gradient of the rows that were looked up, float32 [count, WIDTH]."""
    return np.random.default_rng(1).normal(size=(count, WIDTH)).astype(np.float32)
