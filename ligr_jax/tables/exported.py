"""Reading rows of an exported table without loading the table."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorstore as ts

from ligr_jax.atomic import version_of
from ligr_jax.ops.quantization import QuantizedTable, dequantize
from ligr_jax.tables.versions import tables_directory
from ligr_jax.tables.zarr import (
    CHUNK_ROWS,
    INDEX,
    DamagedTable,
    ExportError,
    ReplacedExport,
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
        self,
        path: Path,
        shape: tuple[int, int],
        bits: int,
        arrays: dict[str, ts.TensorStore],
        version: tuple[int, int] | None,
    ) -> None:
        self.path = path
        self.shape = shape
        self.bits = bits
        self._arrays = arrays
        self._version = version

    @classmethod
    def open(cls, directory: Path, name: str) -> "ExportedTable":
        """Open a table of a finished export.

        Args:
            directory: artifact, of which the current version is opened, or exported tables.
            name: name of the table.

        Raises:
            ExportError: the export is unfinished or has no such table.
            DamagedTable: files are missing, truncated, or of another shape. Damage within a file is
                detected when it is read.
            ReplacedExport: another process replaced the export at the same time.
        """
        directory = tables_directory(Path(directory))
        version = version_of(directory / INDEX)
        try:
            return cls._open(directory, name, version)
        finally:
            _require_version(directory, version)  # whatever the files of two exports gave

    @classmethod
    def _open(cls, directory: Path, name: str, version: tuple[int, int] | None) -> "ExportedTable":
        index = load_index(directory)
        if name not in index["tables"]:
            known = ", ".join(sorted(index["tables"]))
            raise ExportError(f"{directory} has no table {name!r}; it has {known}")
        entry = index["tables"][name]
        path = table_directory(directory, name)
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
        return cls(path, (rows, width), bits, arrays, version)

    def rows(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return rows as float32 [n, E].

        Args:
            ids: [n], in 0..V-1, in any order, with or without repetition.

        Raises:
            IndexError: an id is out of range.
            DamagedTable: bytes on disk are not those that were written.
            ReplacedExport: the export has been replaced since `open`.
        """
        index = np.asarray(ids, np.int64).reshape(-1)
        outside = index[(index < 0) | (index >= self.shape[0])]
        if outside.size:
            raise IndexError(
                f"{self.path}: id {outside[0]} is outside 0..{self.shape[0] - 1}, the table's rows"
            )
        blocks = self._read(index)
        if self.bits == 32:
            return blocks["values"]
        result: np.ndarray = dequantize(
            QuantizedTable(**blocks, width=self.shape[1], bits=self.bits)
        )
        return result

    def load(self) -> QuantizedTable | np.ndarray:
        """Read the whole table into memory, in the bits that it is stored in.

        Returns:
            float32 [V, E], or the quantized table.

        Raises:
            DamagedTable: bytes on disk are not those that were written.
            ReplacedExport: the export has been replaced since `open`.
        """
        blocks = self._read(np.arange(self.shape[0]))
        if self.bits == 32:
            return blocks["values"]
        return QuantizedTable(**blocks, width=self.shape[1], bits=self.bits)

    def steps(self, ids: np.ndarray) -> np.ndarray:
        """Return the quantization step of each row, float32 [n]; zeros at 32 bits.

        Args:
            ids: int [n], in 0..V-1.

        Raises:
            DamagedTable: bytes on disk are not those that were written.
        """
        if self.bits == 32:
            return np.zeros(len(ids), np.float32)
        try:
            return self._arrays["scale"][ids].read().result()
        except ValueError as e:
            raise self._damage(ids, e) from e

    def _read(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Read rows of all arrays; errors as in `rows`."""
        reads = {name: array[index].read() for name, array in self._arrays.items()}
        try:
            blocks = {name: read.result() for name, read in reads.items()}
        except ValueError as e:
            _require_version(self.path.parent, self._version)
            raise self._damage(index, e) from e
        # After the read: the rows may be those of another export, or fill values of absent files.
        _require_version(self.path.parent, self._version)
        return blocks

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


def _require_version(directory: Path, version: tuple[int, int] | None) -> None:
    """Raise ReplacedExport if the export is not the one that was opened."""
    if version is not None and version_of(directory / INDEX) != version:
        raise ReplacedExport(
            f"{directory} has been replaced by another export since it was opened; open it again"
        )
