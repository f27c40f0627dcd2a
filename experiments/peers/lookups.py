"""Ids and gradients of the race of tables: the same arrays for both sides."""

import numpy as np

WIDTH = 32
BATCHES = 4  # that a side goes round


def lookups(law: str, rows: int, count: int) -> list[np.ndarray]:
    """int64 [count] of each batch; `zipf` is the law of exponent 1, its head spread over V."""
    rng = np.random.default_rng(0)
    if law == "uniform":
        return [rng.integers(0, rows, count) for _ in range(BATCHES)]
    ranks = [np.floor(rows ** rng.random(count)).astype(np.int64) - 1 for _ in range(BATCHES)]
    return [rank * 2_654_435_761 % rows for rank in ranks]


def gradient(count: int) -> np.ndarray:
    """float32 [count, WIDTH], of what was looked up."""
    return np.random.default_rng(1).normal(size=(count, WIDTH)).astype(np.float32)
