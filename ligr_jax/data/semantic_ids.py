"""Semantic ids of items: a table of code tuples, read in checked batches, and their prefixes.

The table is Parquet: `item_id` (integer), the codes `c1` .. `cN` (integers in 0..K-1), and in the
file's metadata K and the digest of the model that gave them.
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
    """c1, c1 K + c2, (c1 K + c2) K + c3, ...: int64 [..., N] of codes [..., N] (LiGR 5.1).

    Ids of n levels lie in 0..K^n-1; three levels of 2,048 codes overflow 32 bits.
    """
    out = codes.astype(np.int64)
    for level in range(1, codes.shape[-1]):
        out[..., level] += out[..., level - 1] * k
    return out


@dataclass(frozen=True)
class SemanticIds:
    """A table of semantic ids, open for reading.

    k: codes of a level.
    levels: N.
    model: digest of the model that gave them, or "unknown".
    """

    path: Path
    k: int
    levels: int
    model: str

    @classmethod
    def open(cls, path: Path) -> "SemanticIds":
        """Raises `BadInput` where the file is no such table."""
        try:
            schema = pq.read_schema(path)
        except (pa.ArrowException, OSError) as e:
            raise BadInput(f"{path}: not a readable Parquet file ({e}); {_MAKE}") from e
        names = [n for n in schema.names if re.fullmatch(r"c\d+", n)]
        wanted = ["item_id", *(f"c{i}" for i in range(1, max(len(names), 1) + 1))]
        for name in wanted:
            if name not in schema.names:
                raise BadInput(f"{path}: no column '{name}' among {schema.names}; {_MAKE}")
            kind = schema.field(name).type
            if not pa.types.is_integer(kind):
                raise BadInput(f"{path}, column '{name}': {kind} where integers are due; {_MAKE}")
        metadata = schema.metadata or {}
        k, levels = metadata.get(CODES, b"").decode(), len(wanted) - 1
        if not k.isdigit() or not 1 <= int(k) ** levels < 2**63:
            raise BadInput(
                f"{path}: metadata {CODES.decode()}={k!r}, the codes of a level, must be a whole "
                f"number K >= 1 with K^{levels} < 2^63; {_MAKE}"
            )
        return cls(path, int(k), levels, metadata.get(MODEL, b"unknown").decode())

    def batches(self) -> Iterator[tuple[LogBatch, np.ndarray]]:
        """The table in file order: a batch, and the prefixes of its tuples, int64 [rows, N].

        Raises:
            BadInput: a missing id, or a code outside 0..K-1.
        """
        names = [f"c{i}" for i in range(1, self.levels + 1)]
        for batch in read_items(self.path):
            _refuse(batch, "item_id", batch.frame["item_id"].is_null(), "every row names its item")
            for name in names:
                inside = batch.frame[name].is_between(0, self.k - 1).fill_null(False)
                _refuse(batch, name, ~inside, f"codes are in 0..{self.k - 1}")
            codes = batch.frame.select(names).to_numpy()
            yield batch, prefix_ids(codes, self.k)


_MAKE = "make one with `ligr sid assign`"


def _refuse(batch: LogBatch, column: str, wrong: pl.Series, rule: str) -> None:
    if wrong.any():
        row = wrong.arg_true()[0]
        raise BadInput(
            f"{batch.file}, row {batch.first_row + row}, column '{column}': value "
            f"{batch.frame[column][row]!r}, but {rule}; {_MAKE}"
        )
