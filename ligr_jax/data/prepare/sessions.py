"""Sessions of sorted histories, vectorized over members.

All functions take the rows of many members, sorted by member and time. Untimed context rows, with
time `UNTIMED`, precede the timed rows of their member.
"""

import numpy as np
import polars as pl

from ligr_jax.data.sources.validate import UNTIMED
from ligr_jax.ops.segments import segments, starts_segment


def starts_by_gap(member: np.ndarray, time_ms: np.ndarray, gap_ms: int) -> np.ndarray:
    """Return whether a session starts at each row, by gaps in time.

    Args:
        member: int64 [N].
        time_ms: int64 [N], milliseconds.
        gap_ms: a longer gap starts a session.

    Returns:
        bool [N]. A session also starts at the first row of a member and at every untimed row.
    """
    starts = starts_segment(member)
    starts[1:] |= np.diff(time_ms) > gap_ms
    result: np.ndarray = starts | (time_ms == UNTIMED) | _after_context(time_ms)
    return result


def starts_by_id(member: np.ndarray, time_ms: np.ndarray, session_id: np.ndarray) -> np.ndarray:
    """Return whether a session starts at each row, by the session ids of the log.

    Sessions of a member that overlap in time (ids A B A) or share a timestamp are merged. A session
    starts at row i if the last row of every earlier session id, and of every earlier timestamp,
    precedes i. Rows are sorted by member, so one running maximum covers all members.

    Args:
        member: int64 [N].
        time_ms: int64 [N], milliseconds.
        session_id: int64 [N].

    Returns:
        bool [N].
    """
    row = np.arange(len(member))
    keys = pl.DataFrame({"member": member, "session": session_id, "row": row})
    last_of_session = keys.select(pl.col("row").max().over("member", "session"))["row"].to_numpy()
    slate_first, slate_length = segments(member, time_ms)
    slate_ends = slate_first + slate_length - 1
    last_of_slate = slate_ends[np.searchsorted(slate_ends, row)]
    last = np.maximum(last_of_session, last_of_slate)
    last[time_ms == UNTIMED] = row[time_ms == UNTIMED]
    starts = np.ones(len(row), bool)
    starts[1:] = np.maximum.accumulate(last)[:-1] < row[1:]
    return starts


def number_sessions(member: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return the session number of each row, counted from 0 per member, int32 [N]."""
    count = np.cumsum(starts)
    first, lengths = segments(member)
    result: np.ndarray = (count - np.repeat(count[first], lengths)).astype(np.int32)
    return result


def sessions_merged(
    member: np.ndarray, time_ms: np.ndarray, session_id: np.ndarray, starts: np.ndarray
) -> int:
    """Return the number of session ids of the log that were merged into another session."""
    timed = time_ms != UNTIMED
    ids = pl.DataFrame({"member": member[timed], "session": session_id[timed]})
    return ids.n_unique() - int(starts[timed].sum())


def _after_context(time_ms: np.ndarray) -> np.ndarray:
    """Return whether the previous row is untimed, bool [N]."""
    after = np.zeros(len(time_ms), bool)
    after[1:] = time_ms[:-1] == UNTIMED
    return after
