"""Tables of users or items in memory, which every batch of a large log looks up.

A binary search per row needs no hash table of all ids for each batch, as a join does.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ligr_jax.data.sources.source import LogBatch


@dataclass(frozen=True)
class IdTable:
    """Columns by id.

    Attributes:
        ids: int [n], increasing.
        columns: n rows.
    """

    ids: np.ndarray
    columns: pl.DataFrame

    @classmethod
    def of(cls, batches: Iterable[LogBatch], key: str, names: Sequence[str]) -> "IdTable":
        """Return columns of a table by id; the first row of an id counts, rows without one do not.

        Args:
            batches: the table.
            key: its column of ids.
            names: the columns.
        """
        frame = pl.concat(batch.frame.select(key, *names) for batch in batches).drop_nulls(key)
        frame = frame.unique(key, keep="first", maintain_order=True).sort(key)
        return cls(frame[key].to_numpy(), frame.drop(key))

    def find(self, ids: pl.Series) -> pl.DataFrame:
        """Return the columns of some ids, null where an id is null or absent."""
        wanted = ids.fill_null(0).to_numpy()
        row = np.searchsorted(self.ids, wanted)
        known = row < len(self.ids)
        known[known] = self.ids[row[known]] == wanted[known]
        rows = pl.Series(row).set(~pl.Series(known) | ids.is_null(), None)
        return self.columns.select(pl.all().gather(rows))
