"""Ids as 64-bit integers: integers stay as they are, strings by xxh64 (seed 0) of their UTF-8."""

import numpy as np
import polars as pl
import pyarrow as pa
import xxhash

from ligr_jax.data.manifest import MISSING


def to_ids(values: pl.Series, text: bool = False) -> np.ndarray:
    """int64 ids, `MISSING` where null.

    Unsigned 64-bit integers are reinterpreted. text: the values come from a file without types, so
    those spelled as integers ("17", but not "017") are integers.
    Raises `TypeError` for values that are neither integers, booleans nor strings.
    """
    dtype = values.dtype
    if dtype in (pl.Categorical, pl.Enum):
        values, dtype = values.cast(pl.String), pl.String()
    if dtype == pl.String:
        return _text_ids(values) if text else hash_strings(values)
    if dtype == pl.UInt64:
        ids = values.fill_null(0).to_numpy().view(np.int64).copy()
    elif dtype.is_integer() or dtype == pl.Boolean:
        ids = values.fill_null(0 if dtype.is_integer() else False).cast(pl.Int64).to_numpy().copy()
    elif dtype == pl.Null:
        return np.full(len(values), MISSING, np.int64)
    else:
        raise TypeError(f"{dtype} values are no ids")
    ids[values.is_null().to_numpy()] = MISSING
    return ids


def hash_strings(values: pl.Series) -> np.ndarray:
    """int64 xxh64 of each string, computed once per distinct value; `MISSING` where null."""
    coded = values.to_arrow().cast(pa.large_string()).dictionary_encode()
    distinct = coded.dictionary.to_pylist()
    hashes = np.empty(len(distinct) + 1, np.uint64)
    hashes[:-1] = [xxhash.xxh64_intdigest(v.encode()) for v in distinct]
    ids = hashes.view(np.int64)
    ids[-1] = MISSING
    return ids[coded.indices.fill_null(len(distinct)).to_numpy()]


def _text_ids(values: pl.Series) -> np.ndarray:
    ids = np.full(len(values), MISSING)
    for dtype in (pl.Int64, pl.UInt64):
        numbers = values.cast(dtype, strict=False)
        is_number = (numbers.cast(pl.String) == values).fill_null(False)
        ids = np.where(is_number.to_numpy(), numbers.fill_null(0).to_numpy().view(np.int64), ids)
        values = values.set(is_number, None)
        if not values.count():
            return ids
    return np.where(values.is_null().to_numpy(), ids, hash_strings(values))
