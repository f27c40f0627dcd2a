"""Ids as 64-bit integers: integers are unchanged, strings are hashed by xxh64 (seed 0) of UTF-8.

The same rules apply to files with and without types. A string that spells an integer ("17", but
neither "017" nor "+17") is that integer, a float without a fraction (58.0, "58.0") is an integer,
and booleans and the words true and false are 1 and 0. A float with a fraction is not an id, and
neither is a float above 2^53, because doubles cannot represent all larger integers. Bytes are text,
or are hashed if they are not UTF-8.
"""

from collections.abc import Callable

import numpy as np
import polars as pl
import pyarrow as pa
import xxhash

from ligr_jax.data.manifest import MISSING
from ligr_jax.data.sources.rules import Rules

PROBED = 1024  # values that show whether a column has few distinct values
EXACT = 2**53  # doubles represent all integers below
FRACTION = (
    "is a float with a fraction and not an id; write ids as integers or strings, or declare a "
    "column of numbers as --numeric"
)
TOO_LARGE = (
    "is a float above 2^53, where floats do not distinguish ids; write ids as integers or strings"
)
RESERVED_ID = "is the id that stands for a missing id; write ids as strings"
BOOLEANS = {"true": 1, "True": 1, "TRUE": 1, "false": 0, "False": 0, "FALSE": 0}


def parse_ids(values: pl.Series, text: bool = True) -> tuple[np.ndarray, Rules]:
    """Parse a column of ids.

    Args:
        values: [N]. Unsigned 64-bit integers are reinterpreted as signed.
        text: whether strings that spell an integer, a float or a boolean are converted. False means
            that an adapter set the type of the column, and all strings are hashed.

    Returns:
        int64 [N], `MISSING` for null; and the rows that are not ids.

    Raises:
        TypeError: the type of the column cannot hold ids.
    """
    dtype = values.dtype
    if dtype in (pl.Categorical, pl.Enum):
        values, dtype = values.cast(pl.String), pl.String()
    if dtype in (pl.Date, pl.Int128) or dtype.is_decimal():
        return _text_ids(values.cast(pl.String))
    if dtype == pl.String:
        return _repetitive_ids(values) if text else (hash_strings(values), [])
    if dtype == pl.Binary:
        return _binary_ids(values)
    if dtype.is_float():
        return _float_ids(values.cast(pl.Float64).fill_nan(None))
    if dtype == pl.UInt64:
        ids = values.fill_null(0).to_numpy().view(np.int64).copy()
    elif dtype.is_integer() and not values.null_count():
        ids = values.cast(pl.Int64).to_numpy()
        return ids, [(ids == MISSING, RESERVED_ID)] if dtype == pl.Int64 else []
    elif dtype.is_integer() or dtype == pl.Boolean:
        ids = values.fill_null(0 if dtype.is_integer() else False).cast(pl.Int64).to_numpy().copy()
    elif dtype == pl.Null:
        return np.full(len(values), MISSING, np.int64), []
    else:
        raise TypeError(f"{dtype} values are not ids")
    rules = [(ids == MISSING, RESERVED_ID)] if dtype in (pl.Int64, pl.UInt64) else []
    ids[values.is_null().to_numpy()] = MISSING
    return ids, rules


def to_ids(values: pl.Series, text: bool = True) -> np.ndarray:
    """Parse a column of ids, as `parse_ids` does.

    Raises:
        TypeError: a value is not an id.
    """
    ids, rules = parse_ids(values, text)
    for rows, rule in rules:
        if rows.any():
            raise TypeError(f"value {values[int(rows.argmax())]!r} {rule}")
    return ids


def hash_strings(values: pl.Series) -> np.ndarray:
    """Hash strings or bytes to int64 ids by xxh64; null becomes `MISSING`.

    Every distinct value is hashed once.
    """
    coded = values.cast(pl.Binary).to_arrow().cast(pa.large_binary()).dictionary_encode()
    distinct = coded.dictionary.to_pylist()
    hashes = np.empty(len(distinct) + 1, np.uint64)
    hashes[:-1] = [xxhash.xxh64_intdigest(v) for v in distinct]
    ids = hashes.view(np.int64)
    ids[-1] = MISSING
    result: np.ndarray = ids[coded.indices.fill_null(len(distinct)).to_numpy()]
    return result


def _repetitive_ids(values: pl.Series) -> tuple[np.ndarray, Rules]:
    """Parse text as `_text_ids` does, and every distinct value once if few values are distinct."""
    if values.head(PROBED).n_unique() > PROBED // 8:
        return _text_ids(values)
    coded = values.to_arrow().cast(pa.large_string()).dictionary_encode()
    distinct = pl.Series([*coded.dictionary.to_pylist(), None], dtype=pl.String)
    ids, rules = _text_ids(distinct)
    index = coded.indices.fill_null(len(distinct) - 1).to_numpy()
    return ids[index], [(rows[index], rule) for rows, rule in rules if rows.any()]


def _text_ids(values: pl.Series) -> tuple[np.ndarray, Rules]:
    """Parse text: signed and unsigned integers, floats, booleans, and strings, in this order."""
    ids = np.full(len(values), MISSING)
    rules: Rules = []
    kinds: list[Callable[[pl.Series], tuple[pl.Series, np.ndarray, Rules]]] = [
        _signed,
        _unsigned,
        _floats,
        _booleans,
    ]
    for kind in kinds:
        matches, numbers, broken = kind(values)
        matched = int(matches.sum())
        if not matched:
            continue
        ids = np.where(matches.to_numpy(), numbers, ids)
        rules += broken
        if matched == values.count():
            return ids, rules
        values = values.set(matches, None)
    return np.where(values.is_null().to_numpy(), ids, hash_strings(values)), rules


def _binary_ids(values: pl.Series) -> tuple[np.ndarray, Rules]:
    """Parse each distinct value as text; bytes that are not UTF-8 are hashed."""
    coded = values.to_arrow().cast(pa.large_binary()).dictionary_encode()
    distinct = pl.Series([*coded.dictionary.to_pylist(), None], dtype=pl.Binary)
    text = pl.Series([_decoded(value) for value in distinct], dtype=pl.String)
    ids, rules = _text_ids(text.set(text == "", None))
    ids = np.where(text.is_null().to_numpy(), hash_strings(distinct), ids)
    index = coded.indices.fill_null(len(distinct) - 1).to_numpy()
    return ids[index], [(rows[index], rule) for rows, rule in rules if rows.any()]


def _decoded(value: bytes | None) -> str | None:
    """Return bytes as text without outer white space, or None if they are not UTF-8."""
    try:
        return value.decode().strip() if value is not None else None
    except UnicodeDecodeError:
        return None


def _signed(values: pl.Series) -> tuple[pl.Series, np.ndarray, Rules]:
    """Return which values are int64, their ids, and the rows that are not ids."""
    numbers = values.cast(pl.Int64, strict=False)
    ids = numbers.fill_null(0).to_numpy()
    # Text that is parsed as an integer and has the integer's length has no sign or zero to spare.
    length = values.str.len_bytes().fill_null(0).to_numpy()
    matches = numbers.is_not_null() & pl.Series(length == _decimal_length(ids))
    return matches, ids, [(matches.to_numpy() & (ids == MISSING), RESERVED_ID)]


def _decimal_length(numbers: np.ndarray) -> np.ndarray:
    """Return the number of characters of each integer in decimal notation, [N]."""
    size = np.abs(numbers).view(
        np.uint64
    )  # the absolute value of -2^63 fits into unsigned integers
    length = np.ones(len(numbers), np.uint32) + (numbers < 0)
    largest = int(size.max(initial=0))
    power = 10
    while power <= largest:
        length += size >= np.uint64(power)
        power *= 10
    return length


def _unsigned(values: pl.Series) -> tuple[pl.Series, np.ndarray, Rules]:
    numbers = values.cast(pl.UInt64, strict=False)
    matches = (numbers.cast(pl.String) == values).fill_null(False)
    ids = numbers.fill_null(0).to_numpy().view(np.int64)
    return matches, ids, [(matches.to_numpy() & (ids == MISSING), RESERVED_ID)]


def _floats(values: pl.Series) -> tuple[pl.Series, np.ndarray, Rules]:
    """Parse decimal notation; 1e5 stays a string because it can be a hexadecimal id."""
    matches = values.str.contains(r"^-?(0|[1-9]\d*)\.\d*$").fill_null(False)
    numbers = values.set(~matches, None).cast(pl.Float64, strict=False)
    return matches, *_float_ids(numbers)


def _booleans(values: pl.Series) -> tuple[pl.Series, np.ndarray, Rules]:
    matches = values.is_in(list(BOOLEANS)).fill_null(False)
    ones = [word for word, number in BOOLEANS.items() if number]
    return matches, values.is_in(ones).fill_null(False).cast(pl.Int64).to_numpy(), []


def _float_ids(numbers: pl.Series) -> tuple[np.ndarray, Rules]:
    x = numbers.fill_null(0).to_numpy()
    fraction, large = np.floor(x) != x, ~(np.abs(x) < EXACT)
    ids = np.where(fraction | large, 0, x).astype(np.int64)
    ids[numbers.is_null().to_numpy()] = MISSING
    return ids, [(fraction, FRACTION), (large, TOO_LARGE)]
