"""The distinct table rows of a batch, found on the host: sparse training reads and writes those."""

from collections.abc import Mapping

import numpy as np

from ligr_jax.data.batch import Batch


class DistinctRows:
    """Renames a batch's ids to places in a list of its distinct rows, one list a feature."""

    def __init__(self, table_rows: Mapping[str, int]) -> None:
        """table_rows: V of each feature that has a table."""
        self.table_rows = table_rows

    def __call__(self, batch: Batch) -> tuple[Batch, dict[str, np.ndarray]]:
        """The batch with ids in 0..U-1, and int32 [U] rising rows per feature."""
        places, lists = dict(batch.ids), {}
        for name, v in self.table_rows.items():
            lists[name], places[name] = distinct(batch.ids[name], v)
        return batch._replace(ids=places), lists


def distinct(ids: np.ndarray, v: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct rows of a table of `v`, int32 [U], and where each id stands among them, like `ids`.

    U is what fits every batch of this size, so that a step compiles once: after the rows come
    v, v + 1, ..., which are nobody's.
    """
    rows, place = np.unique(ids, return_inverse=True)
    none = np.arange(v, v + min(v, ids.size) - len(rows))
    listed = np.concatenate([rows, none]).astype(np.int32)
    return listed, place.reshape(ids.shape).astype(np.int32)
