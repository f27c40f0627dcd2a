"""Selected positions of a batch as a new batch, on the host."""

import numpy as np

from ligr_jax.config import ModelConfig
from ligr_jax.data.batch import Batch
from ligr_jax.data.padding import padding_batch


def take_positions(batch: Batch, index: np.ndarray, model: ModelConfig) -> Batch:
    """Return the impressions at some positions of each row; values do not change.

    Args:
        batch: arrays [B, N, ...].
        index: int [B, M], positions in 0..N-1; -1 gives padding.
        model: features and actions, for the values of padding.

    Returns:
        A batch [B, M].
    """
    padding = padding_batch(model, *index.shape)
    rows = np.arange(len(index))[:, None]
    taken = np.maximum(index, 0)
    present = index >= 0

    def take(values: np.ndarray, empty: np.ndarray) -> np.ndarray:
        mask = present.reshape(index.shape + (1,) * (empty.ndim - 2))
        return np.where(mask, np.asarray(values)[rows, taken], empty).astype(empty.dtype)

    def take_all(name: str) -> dict[str, np.ndarray]:
        values = getattr(batch, name)
        return {key: take(values[key], empty) for key, empty in getattr(padding, name).items()}

    return Batch(
        member=take(batch.member, padding.member),
        session=take(batch.session, padding.session),
        time=take(batch.time, padding.time),
        ids=take_all("ids"),
        numeric=take_all("numeric"),
        vectors=take_all("vectors"),
        labels=take(batch.labels, padding.labels),
        weight=take(batch.weight, padding.weight),
    )


def positions_where(chosen: np.ndarray, width: int = 0) -> np.ndarray:
    """Return the positions of chosen impressions in each row, in order.

    Args:
        chosen: bool [B, N].
        width: M, at least the largest number of chosen impressions of a row; 0 for that number.

    Returns:
        int64 [B, M], padded with -1 at the end.
    """
    counts = chosen.sum(axis=1)
    width = width or max(1, int(counts.max(initial=0)))
    order = np.argsort(~chosen, axis=1, kind="stable")[:, :width]
    order = np.pad(order, ((0, 0), (0, max(0, width - order.shape[1]))), constant_values=-1)
    index: np.ndarray = np.where(np.arange(width) < counts[:, None], order, -1)
    return index


def in_newest_session(batch: Batch) -> np.ndarray:
    """Return which impressions are in the newest session of their row, bool [B, N].

    Args:
        batch: rows of one member each.
    """
    valid = batch.member > 0
    newest = np.where(valid, batch.session, -1).max(axis=1, keepdims=True)
    result: np.ndarray = valid & (batch.session == newest)
    return result
