"""Impressions of sessions in another order in every epoch (Feed-SR, arXiv:2602.12354).

The order is a pure function of the seed, the epoch and the numbers of the impressions: it does not
depend on batches, processes or loader workers, and a run that continues has the batches of one that
was never interrupted.

The times of a session stay at their positions, so that times do not fall along a row: an
impression gets the time of the position that it takes.
"""

from typing import NamedTuple

import numpy as np

from ligr_jax.data.assemble import Assembler
from ligr_jax.data.batch import Batch
from ligr_jax.data.packing_plan import PlacedRows
from ligr_jax.ops.hashing import mix64


class EpochRows(NamedTuple):
    """Rows of a plan, and the epoch in which each is read, both int [B]."""

    row: np.ndarray
    epoch: np.ndarray


class ShuffledSessions:
    """Maps rows of epochs to batches in which the impressions of each session are permuted."""

    def __init__(self, assemble: Assembler, seed: int) -> None:
        """
        Args:
            assemble: maps row numbers to batches.
            seed: seed of the permutations.
        """
        self._assemble, self._seed = assemble, seed

    def __call__(self, rows: EpochRows) -> Batch:
        """Return the batch of some rows."""
        placed = self._assemble.plan.place(rows.row)
        # Padding reads impression 0.
        index = np.maximum(placed.impression, 0)
        session = self._assemble.records.take("session", self._assemble.records.locate(index))
        key = mix64(mix64(rows.epoch.astype(np.int64)) ^ mix64(np.asarray([self._seed])))
        order = session_order(placed, session, key)
        batch = self._assemble.of_placed(_permuted(placed, order))
        time = np.empty_like(batch.time)
        time.ravel()[order] = batch.time.ravel()
        return batch._replace(time=time)


def session_order(placed: PlacedRows, session: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Return a random permutation of positions that keeps every session in its place.

    Args:
        placed: the rows.
        session: int [B, N], sessions, which do not fall within a window.
        key: uint64 [B], a random key of each row.

    Returns:
        int64 [B N]: for each flat position, the flat position whose impression it gets.
    """
    # One group per session of a window, in the order of the flat positions.
    starts = np.zeros(session.size, bool)
    starts[placed.begin] = True
    flat = session.ravel()
    starts[1:] |= flat[1:] != flat[:-1]
    random = mix64(placed.impression.astype(np.uint64) ^ key[:, None])
    order: np.ndarray = np.lexsort((random.ravel(), np.cumsum(starts)))
    return order


def _permuted(placed: PlacedRows, order: np.ndarray) -> PlacedRows:
    """Return rows with the impressions of other positions; windows stay."""
    shape = placed.impression.shape
    return placed._replace(
        impression=placed.impression.ravel()[order].reshape(shape),
        is_target=placed.is_target.ravel()[order].reshape(shape),
    )
