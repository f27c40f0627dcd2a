"""Rows of a log that occur more than once."""

from collections.abc import Mapping

import numpy as np
import polars as pl

from ligr_jax.data.sources.validate import UNTIMED


def repeated_rows(member: np.ndarray, time_ms: np.ndarray, digest: np.ndarray) -> np.ndarray:
    """Return whether a row equals an earlier row, bool [N]; false for context rows.

    Equal rows have equal times, so only rows that share a timestamp with a neighbour are compared.

    Args:
        member: int64 [N], sorted.
        time_ms: int64 [N], sorted within a member.
        digest: uint64 [N], digests of the rows.
    """
    repeated = np.zeros(len(member), bool)
    same = (member[1:] == member[:-1]) & (time_ms[1:] == time_ms[:-1]) & (time_ms[1:] != UNTIMED)
    rows = np.flatnonzero(np.append(same, False) | np.append(False, same))
    # Few digests occur twice, so all other rows are left out of the exact comparison.
    ordered = np.sort(digest[rows])
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(twice):
        return repeated
    rows = rows[np.isin(digest[rows], twice)]
    keys = pl.DataFrame({"m": member[rows], "t": time_ms[rows], "d": digest[rows]})
    repeated[rows] = (
        ~keys.select(pl.struct("m", "t", "d").is_first_distinct()).to_series().to_numpy()
    )
    return repeated


def superseded_rows(
    member: np.ndarray, time_ms: np.ndarray, item: np.ndarray, labels: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Return whether a later row has other labels for the same impression, bool [N].

    Rows of one member, item and time are one impression. If their labels differ, only its last row
    is not superseded. Context rows have no time and are never superseded.

    Args:
        member: int64 [N].
        time_ms: int64 [N], milliseconds; rows of equal time are in file order.
        item: int64 [N].
        labels: int8 [N] each.
    """
    impressions = pl.DataFrame({"m": member, "t": time_ms, "i": item})
    rows = np.flatnonzero(impressions.is_duplicated().to_numpy() & (time_ms != UNTIMED))
    several = impressions[rows].with_columns(
        labels=pl.DataFrame({name: values[rows] for name, values in labels.items()}).to_struct()
    )
    key = pl.struct("m", "t", "i")
    differ = pl.col("labels").n_unique().over("m", "t", "i") > 1
    superseded = np.zeros(len(member), bool)
    superseded[rows] = several.select(differ & ~key.is_last_distinct()).to_series().to_numpy()
    return superseded
