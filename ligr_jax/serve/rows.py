"""Rows of an artifact's tables on the host: from memory if a table is small, else from its files.

Rows are dequantized by the code that training's exports use, so that they are equal bit by bit.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ligr_jax.ops.quantization import QuantizedTable, lookup_rows
from ligr_jax.tables.exported import ExportedTable

SMALL = 2**30  # bytes of a table, as stored, up to which it is read into memory


class HostTables:
    """All tables of an artifact."""

    def __init__(self, directory: Path, names: Mapping[str, object], small: int = SMALL) -> None:
        """
        Args:
            directory: directory of the exported tables.
            names: names of the tables.
            small: bytes up to which a table is read into memory.

        Raises:
            DamagedTable: a table is damaged.
        """
        self._files = {name: ExportedTable.open(directory, name) for name in names}
        self._tables: dict[str, QuantizedTable | np.ndarray | ExportedTable] = {}
        for name, file in self._files.items():
            rows, width = file.shape
            self._tables[name] = file.load() if rows * width * file.bits / 8 <= small else file

    def rows(self, name: str, ids: np.ndarray) -> np.ndarray:
        """Return rows of a table.

        Args:
            name: name of the table.
            ids: int array of any shape, in 0..V-1.

        Returns:
            float32 [*ids.shape, E].
        """
        table = self._tables[name]
        if isinstance(table, ExportedTable):
            return table.rows(ids).reshape(*ids.shape, -1)
        rows: np.ndarray = table[ids] if isinstance(table, np.ndarray) else lookup_rows(table, ids)
        return rows

    def steps(self, name: str, ids: np.ndarray) -> np.ndarray:
        """Return the quantization step of rows, float32 of the shape of `ids`; 0 at 32 bits.

        Args:
            name: name of the table.
            ids: int array of any shape, in 0..V-1.
        """
        return self._files[name].steps(ids.reshape(-1)).reshape(ids.shape)
