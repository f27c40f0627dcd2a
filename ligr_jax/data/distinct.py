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
        """The batch with ids in 0..U-1, and int32 [U] rising rows per feature.

        U is the same for every batch of a shape, so that a step compiles once: after the rows come
        V, V + 1, ..., which are nobody's.
        """
        places, lists = dict(batch.ids), {}
        for name, v in self.table_rows.items():
            rows, place = np.unique(batch.ids[name], return_inverse=True)
            size = min(v, batch.ids[name].size)
            none = np.arange(v, v + size - len(rows))
            lists[name] = np.concatenate([rows, none]).astype(np.int32)
            places[name] = place.reshape(batch.ids[name].shape).astype(np.int32)
        return batch._replace(ids=places), lists
