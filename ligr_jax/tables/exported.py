"""Reading rows of an exported table without loading the table."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorstore as ts

from ligr_jax.ops.quantization import QuantizedTable, dequantize
from ligr_jax.tables.zarr import (
    CHUNK_ROWS,
    DamagedTable,
    ExportError,
    arrays_of,
    bytes_of,
    existing_array,
    load_index,
    table_directory,
)


class ExportedTable:
    """A table of an export; create it with `open`.

    Attributes:
        path: directory of the table.
        shape: (V, E).
        bits: 32, 8 or 4.
    """

    def __init__(
        self, path: Path, shape: tuple[int, int], bits: int, arrays: dict[str, ts.TensorStore]
    ) -> None:
        self.path, self.shape, self.bits = path, shape, bits
        self._arrays = arrays

    @classmethod
    def open(cls, directory: Path, name: str) -> "ExportedTable":
        """Open the table `name` of a finished export.

        Raises:
            ExportError: the export is unfinished or has no such table.
            DamagedTable: files are missing, truncated, or of another shape. Damage within a file is
                detected when it is read.
        """
        index = load_index(Path(directory))
        if name not in index["tables"]:
            known = ", ".join(sorted(index["tables"]))
            raise ExportError(f"{directory} has no table {name!r}; it has {known}")
        entry = index["tables"][name]
        path = table_directory(Path(directory), name)
        size = bytes_of(path)
        if size != entry["bytes"]:
            raise DamagedTable(
                f"{path} has {size:,} bytes, but {entry['bytes']:,} were written; export it again"
            )
        rows, width, bits = entry["rows"], entry["width"], entry["bits"]
        arrays = {}
        for array, expected in arrays_of(rows, width, bits).items():
            try:
                arrays[array] = opened = existing_array(path / array)
            except ValueError as e:
                raise DamagedTable(f"{path / array} cannot be opened ({e}); export again") from e
            if (opened.dtype.name, opened.shape) != expected:
                raise DamagedTable(
                    f"{path / array} is {opened.dtype.name} {list(opened.shape)}, the index says "
                    f"{expected[0]} {list(expected[1])}; export again"
                )
        return cls(path, (rows, width), bits, arrays)

    def rows(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return rows as float32 [n, E].

        Args:
            ids: [n], in 0..V-1, in any order, with or without repetition.

        Raises:
            IndexError: an id is out of range.
            DamagedTable: bytes on disk are not those that were written.
        """
        index = np.asarray(ids, np.int64).reshape(-1)
        outside = index[(index < 0) | (index >= self.shape[0])]
        if outside.size:
            raise IndexError(
                f"{self.path}: id {outside[0]} is outside 0..{self.shape[0] - 1}, the table's rows"
            )
        reads = {name: array[index].read() for name, array in self._arrays.items()}
        try:
            blocks = {name: read.result() for name, read in reads.items()}
        except ValueError as e:
            raise self._damage(index, e) from e
        if self.bits == 32:
            return blocks["values"]
        return dequantize(QuantizedTable(**blocks, width=self.shape[1], bits=self.bits))

    def _damage(self, index: np.ndarray, error: ValueError) -> DamagedTable:
        """Return the error that names the array and rows that cannot be read."""
        for chunk in np.unique(index // CHUNK_ROWS):
            first = int(chunk * CHUNK_ROWS)
            last = min(first + CHUNK_ROWS, self.shape[0]) - 1
            for name, array in self._arrays.items():
                try:
                    array[first].read().result()
                except ValueError as e:
                    where = f"{self.path / name}: rows {first} to {last}"
                    return DamagedTable(f"{where} are damaged ({e}); export the table again")
        return DamagedTable(f"{self.path} could not be read ({error}); try again")
