"""Sessions of sorted histories, without a loop over rows.

All functions take the rows of many members at once, sorted by (member, time), `UNTIMED` context
first, and return the numbers the prepared form holds.
"""

import numpy as np
import polars as pl

from ligr_jax.data.sources.validate import UNTIMED


def starts_by_gap(member: np.ndarray, time_ms: np.ndarray, gap_ms: int) -> np.ndarray:
    """bool [rows]: a session starts where the member changes or the pause exceeds `gap_ms`."""
    starts = _changes(member)
    starts[1:] |= np.diff(time_ms) > gap_ms
    return starts | (time_ms == UNTIMED) | _after_context(time_ms)


def starts_by_id(member: np.ndarray, time_ms: np.ndarray, session_id: np.ndarray) -> np.ndarray:
    """bool [rows]: a session starts where nothing seen before it in the member goes on.

    Sessions that overlap in time (ids A B A), or that share a timestamp, are one. Row i starts a
    session exactly where every session id and every timestamp of the rows before it has its last
    row before i; rows being sorted by member, one running maximum serves all members.
    """
    row = np.arange(len(member))
    keys = pl.DataFrame({"member": member, "session": session_id, "row": row})
    last_of_session = keys.select(pl.col("row").max().over("member", "session"))["row"].to_numpy()
    slate_ends = np.append(np.flatnonzero(_changes(member) | _changes(time_ms))[1:], len(row)) - 1
    last_of_slate = slate_ends[np.searchsorted(slate_ends, row)]
    last = np.maximum(last_of_session, last_of_slate)
    last[time_ms == UNTIMED] = row[time_ms == UNTIMED]
    starts = np.ones(len(row), bool)
    starts[1:] = np.maximum.accumulate(last)[:-1] < row[1:]
    return starts


def number_sessions(member: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """int32 [rows]: sessions counted from 0 in each member."""
    count = np.cumsum(starts)
    first = np.flatnonzero(_changes(member))
    lengths = np.diff(np.append(first, len(member)))
    return (count - np.repeat(count[first], lengths)).astype(np.int32)


def sessions_merged(
    member: np.ndarray, time_ms: np.ndarray, session_id: np.ndarray, starts: np.ndarray
) -> int:
    """How many of the log's sessions have gone into another one."""
    timed = time_ms != UNTIMED
    ids = pl.DataFrame({"member": member[timed], "session": session_id[timed]})
    return ids.n_unique() - int(starts[timed].sum())


def _changes(values: np.ndarray) -> np.ndarray:
    """bool [rows]: true where a value differs from the one before it, and at the first."""
    changes = np.ones(len(values), bool)
    changes[1:] = values[1:] != values[:-1]
    return changes


def _after_context(time_ms: np.ndarray) -> np.ndarray:
    after = np.zeros(len(time_ms), bool)
    after[1:] = time_ms[:-1] == UNTIMED
    return after
