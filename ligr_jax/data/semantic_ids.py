"""Tables of semantic ids, and the prefixes of semantic ids as integers.

A table is a Parquet file with the columns `item_id` (integer) and `c1` .. `cN` (codes, integers in
0..K-1). The metadata of the file has K and the digest of the model that assigned the codes.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.files import read_items
from ligr_jax.data.sources.source import LogBatch

CODES, MODEL = b"sid_codes", b"sid_digest"  # keys of the metadata


def prefix_ids(codes: np.ndarray, k: int) -> np.ndarray:
    """Return the prefixes of code tuples as integers (LiGR 5.1).

    The prefixes are c1, c1 K + c2, (c1 K + c2) K + c3, ... A prefix of n codes is in 0..K^n-1;
    three levels of 2,048 codes exceed 32 bits.

    Args:
        codes: int [..., N].
        k: K, number of codes of a level.

    Returns:
        int64 [..., N], the prefixes of 1 to N codes.
    """
    out = codes.astype(np.int64)
    for level in range(1, codes.shape[-1]):
        out[..., level] += out[..., level - 1] * k
    return out


@dataclass(frozen=True)
class SemanticIds:
    """A table of semantic ids.

    Attributes:
        path: the Parquet file.
        k: K, number of codes of a level.
        levels: N, number of codes of an item.
        model: digest of the model that assigned the codes, or "unknown".
    """

    path: Path
    k: int
    levels: int
    model: str

    @classmethod
    def open(cls, path: Path) -> "SemanticIds":
        """Read the schema and the metadata of a table.

        Raises:
            BadInput: the file is not a table of semantic ids.
        """
        try:
            schema = pq.read_schema(path)
        except (pa.ArrowException, OSError) as e:
            raise BadInput(f"{path}: not a readable Parquet file ({e}); {_MAKE}") from e
        names = [n for n in schema.names if re.fullmatch(r"c\d+", n)]
        required = ["item_id", *(f"c{i}" for i in range(1, max(len(names), 1) + 1))]
        for name in required:
            if name not in schema.names:
                raise BadInput(f"{path}: no column '{name}' among {schema.names}; {_MAKE}")
            kind = schema.field(name).type
            if not pa.types.is_integer(kind):
                raise BadInput(f"{path}, column '{name}': type {kind}, expected integers; {_MAKE}")
        metadata = schema.metadata or {}
        k, levels = metadata.get(CODES, b"").decode(), len(required) - 1
        if not k.isdigit() or not 1 <= int(k) ** levels < 2**63:
            raise BadInput(
                f"{path}: metadata {CODES.decode()}={k!r}, the number of codes of a level, must be "
                f"an integer K >= 1 with K^{levels} < 2^63; {_MAKE}"
            )
        return cls(path, int(k), levels, metadata.get(MODEL, b"unknown").decode())

    def batches(self) -> Iterator[tuple[LogBatch, np.ndarray]]:
        """Yield the table in file order.

        Yields:
            A batch, and the prefixes of its code tuples, int64 [rows, N].

        Raises:
            BadInput: an item id is missing, or a code is outside 0..K-1.
        """
        names = [f"c{i}" for i in range(1, self.levels + 1)]
        for batch in read_items(self.path):
            _refuse(
                batch, "item_id", batch.frame["item_id"].is_null(), "every row needs an item id"
            )
            for name in names:
                inside = batch.frame[name].is_between(0, self.k - 1).fill_null(False)
                _refuse(batch, name, ~inside, f"codes are in 0..{self.k - 1}")
            codes = batch.frame.select(names).to_numpy()
            yield batch, prefix_ids(codes, self.k)


_MAKE = "make the table with `ligr sid assign`"


def _refuse(batch: LogBatch, column: str, invalid: pl.Series, rule: str) -> None:
    """Raise `BadInput` for the first invalid row."""
    if invalid.any():
        row = invalid.arg_true()[0]
        raise BadInput(
            f"{batch.file}, row {batch.row_number(row)}, column '{column}': value "
            f"{batch.frame[column][row]!r}, but {rule}; {_MAKE}"
        )
