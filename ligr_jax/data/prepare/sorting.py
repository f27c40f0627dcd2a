"""Stable sorting and lookup of 64-bit integers.

NumPy sorts integers in place about fifteen times as fast as it sorts indices, because the former
uses vector instructions. A value and its position are therefore packed into one integer where they
fit.
"""

import numpy as np
import polars as pl


def sort_by_member_and_time(member: np.ndarray, time_ms: np.ndarray) -> np.ndarray:
    """Return the indices that sort rows by member and time, int64 [N]; ties stay in order."""
    by_time = stable_argsort(time_ms)
    result: np.ndarray = by_time[stable_argsort(member[by_time])]
    return result


def stable_argsort(values: np.ndarray) -> np.ndarray:
    """Return the indices that sort `values` (int64 [N]), int64 [N]; equal values stay in order."""
    if not len(values):
        return np.empty(0, np.int64)
    bits = (len(values) - 1).bit_length()
    low, high = int(values.min()), int(values.max())
    if (high - low).bit_length() + bits > 64:  # e.g. hashed ids: sort by their ranks
        distinct = np.sort(pl.Series(values).unique().to_numpy())
        values, low = find_sorted(distinct, values), 0
    keys = (values - low).view(np.uint64) << np.uint64(bits)
    keys |= np.arange(len(values), dtype=np.uint64)
    keys.sort()
    result: np.ndarray = (keys & np.uint64((1 << bits) - 1)).view(np.int64)
    return result


def find_sorted(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the index of each wanted id in increasing `ids` (int64), or -1; int64 [N]."""
    table = pl.DataFrame({"id": ids, "index": np.arange(len(ids))})
    rows = pl.DataFrame({"id": wanted}).join(table, on="id", how="left", maintain_order="left")
    result: np.ndarray = rows["index"].fill_null(-1).to_numpy()
    return result
