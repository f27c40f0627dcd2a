"""Items and their content vectors, memory-mapped: read in order or at random rows.

A source is a prepared directory, whose items.arrow is mapped directly, or a Parquet file with a
column `item_id` and a column of vectors, which is copied once to an unnamed temporary file (in
TMPDIR) and mapped.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ligr_jax.data.columns import feature_column, stored_name
from ligr_jax.data.manifest import MISSING, load_manifest
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.ids import to_ids
from ligr_jax.digests import digest_file

ROWS = 1 << 14  # rows read at once


@dataclass(frozen=True)
class Corpus:
    """Items with content vectors.

    Attributes:
        ids: int64 [items of the source].
        vectors: float32 [items of the source, W], memory-mapped.
        digest: xxh64 of the source's file, hexadecimal.
    """

    ids: np.ndarray
    vectors: np.ndarray
    digest: str

    @property
    def width(self) -> int:
        return int(self.vectors.shape[1])

    @cached_property
    def rows(self) -> np.ndarray:
        """int64: rows with content; a vector of zeros means no content."""
        has = np.zeros(len(self.vectors), bool)
        for first in range(0, len(has), ROWS):
            has[first : first + ROWS] = self.vectors[first : first + ROWS].any(1)
        return np.flatnonzero(has)

    def __len__(self) -> int:
        """Return the number of items with content."""
        return len(self.rows)

    def take(self, places: np.ndarray) -> np.ndarray:
        """Return vectors float32 [B, W]; `places` index the items with content."""
        result: np.ndarray = self.vectors[self.rows[places]]
        return result

    def batches(self, size: int = ROWS) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield ids and vectors of all items with content, `size` at a time."""
        for first in range(0, len(self.rows), size):
            rows = self.rows[first : first + size]
            yield self.ids[rows], self.vectors[rows]

    def moments(self) -> tuple[np.ndarray, float]:
        """Return the mean vector, float64 [W], and the mean variance of a coordinate."""
        count = 0
        mean = np.zeros(self.width)
        squares = 0.0
        # Chan et al. 1979: combines batches without the difference of large sums.
        for _, x in self.batches():
            batch_mean = x.mean(0, dtype=np.float64)
            between = ((batch_mean - mean) ** 2).sum() * count * len(x) / (count + len(x))
            squares += ((x - batch_mean) ** 2).sum() + between
            mean += (batch_mean - mean) * len(x) / (count + len(x))
            count += len(x)
        return mean, squares / count / self.width


def open_corpus(source: Path, column: str) -> Corpus:
    """Open a prepared directory or a Parquet file.

    Args:
        source: directory or file.
        column: column of the vectors.

    Raises:
        BadInput: the column is missing; an id is missing or repeated; a vector is null, has
            another length, or is not finite; or no item has content.
    """
    if source.is_dir():
        corpus = _prepared(source, column)
    elif source.suffix == ".parquet" and source.is_file():
        corpus = _parquet(source, column)
    else:
        raise BadInput(f"{source} is neither a prepared directory nor a Parquet file")
    _refuse_twice(source, corpus.ids)
    if not len(corpus):
        raise BadInput(f"{source}, column '{column}': no item has a vector other than zero")
    return corpus


def _prepared(directory: Path, column: str) -> Corpus:
    manifest = load_manifest(directory)
    vectors = [name for name, c in manifest.columns.items() if c.kind == "vector"]
    if not manifest.items or column not in vectors:
        raise BadInput(
            f"{directory} has no item vectors '{column}' (there are "
            f"{', '.join(vectors) or 'none'}); choose another --column, or prepare a log whose "
            "item table has one"
        )
    path = directory / manifest.items.file
    batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
    name = stored_name(feature_column(column), manifest.version)
    if name not in batch.schema.names:
        raise BadInput(
            f"{path}: no column '{column}': it is a vector of impressions; give the vectors of "
            "items as a Parquet file with item_id"
        )
    array = batch[name]
    x = array.values.to_numpy().reshape(-1, array.type.list_size)
    return Corpus(batch["item_id"].to_numpy(), x, manifest.items.xxh64)


def _parquet(path: Path, column: str) -> Corpus:
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as e:
        raise BadInput(f"{path}: not a Parquet file ({e})") from e
    with file, tempfile.TemporaryFile() as scratch:
        names = file.schema_arrow.names
        for name in ("item_id", column):
            if name not in names:
                raise BadInput(
                    f"{path}: no column '{name}' (there are {', '.join(names)}); --column chooses "
                    "the vectors"
                )
        ids, width, row = [], 0, 1
        for batch in file.iter_batches(ROWS, columns=["item_id", column]):
            ids.append(item_ids(pl.Series(batch["item_id"]), f"{path}, column 'item_id'"))
            x = _vectors(path, row, column, batch[column], width)
            width = x.shape[1]
            scratch.write(x.tobytes())
            row += len(x)
        if not width:
            raise BadInput(f"{path}: no rows")
        scratch.flush()
        shape = (row - 1, width)
        vectors = np.memmap(scratch, np.float32, mode="r", shape=shape)
    return Corpus(np.concatenate(ids), vectors, digest_file(path))


def item_ids(values: pl.Series, where: str) -> np.ndarray:
    """Return int64 ids as `ligr prepare` makes them: the text 17 is the integer 17."""
    if values.dtype == pl.String:
        values = values.str.strip_chars()
    try:
        return to_ids(values)
    except TypeError as e:
        raise BadInput(f"{where}: {e}; give integers or strings") from e


def _vectors(path: Path, row: int, column: str, array: pa.Array, width: int) -> np.ndarray:
    """Return float32 [B, W] of a list column.

    Args:
        path: file, for messages.
        row: number of the first row, for messages.
        column: column name, for messages.
        array: the column.
        width: W of the preceding batches; 0 for the first.
    """
    kind = array.type
    lists = (
        pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    )
    if not lists or not pa.types.is_floating(kind.value_type):
        raise BadInput(f"{path}, column '{column}': {kind} values are no vectors of numbers")
    frame = pl.Series(column, array).cast(pl.List(pl.Float32))
    lengths = frame.list.len().fill_null(0).to_numpy()
    width = width or int(lengths[0])
    wrong = np.flatnonzero(lengths != width) if width else np.array([0])
    if len(wrong):
        raise BadInput(
            f"{path}, row {row + wrong[0]}, column '{column}': a vector of {lengths[wrong[0]]} "
            f"numbers where row 1 has {width}; give all items vectors of one length, zeros where "
            "an item has none"
        )
    x = frame.explode(empty_as_null=False).to_numpy().reshape(-1, width)
    bad = np.flatnonzero(~np.isfinite(x).all(1))
    if len(bad):
        raise BadInput(
            f"{path}, row {row + bad[0]}, column '{column}': holds "
            f"{x[bad[0]][~np.isfinite(x[bad[0]])][0]}; give finite numbers"
        )
    return x


def _refuse_twice(source: Path, ids: np.ndarray) -> None:
    """Raise BadInput for a missing or repeated id."""
    order = np.argsort(ids, kind="stable")
    missing = np.flatnonzero(ids == MISSING)
    if len(missing):
        raise BadInput(
            f"{source}, row {missing[0] + 1}, column 'item_id': null; give every row one"
        )
    twice = np.flatnonzero(np.diff(ids[order]) == 0)
    if len(twice):
        first, again = order[twice[0] : twice[0] + 2]
        raise BadInput(
            f"{source}, row {again + 1}, column 'item_id': value {ids[again]} is there twice "
            f"(first in row {first + 1}); give every item one row"
        )
