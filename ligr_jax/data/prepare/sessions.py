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


def starts_by_id(
    member: np.ndarray, time_ms: np.ndarray, session_id: np.ndarray
) -> tuple[np.ndarray, int]:
    """Return where sessions start, by the session ids of the log, and how many ids were merged.

    Sessions of a member that overlap in time (ids A B A) or share a timestamp are merged. A session
    starts at row i if the last row of every earlier session id, and of every earlier timestamp,
    precedes i. Rows are sorted by member, so one running maximum covers all members.

    Args:
        member: int64 [N].
        time_ms: int64 [N], milliseconds.
        session_id: int64 [N].

    Returns:
        Whether a session starts at each row, bool [N]; and the number of session ids that were
        merged into another session.
    """
    row = np.arange(len(member))
    last_of_session = last_rows(member, session_id)
    slate_first, slate_length = segments(member, time_ms)
    slate_ends = slate_first + slate_length - 1
    last_of_slate = np.repeat(slate_ends, slate_length)
    timed = time_ms != UNTIMED
    last = np.where(timed, np.maximum(last_of_session, last_of_slate), row)
    starts = np.ones(len(row), bool)
    starts[1:] = np.maximum.accumulate(last)[:-1] < row[1:]
    session_ids = int(((last_of_session == row) & timed).sum())
    return starts, session_ids - int((starts & timed).sum())


def last_rows(member: np.ndarray, session_id: np.ndarray) -> np.ndarray:
    """Return the last row of each row's session id and member, int64 [N]; rows have members' order.

    Session ids mostly increase with time. Each id of a member is then one segment.
    """
    first, lengths = segments(member, session_id)
    ids, members = session_id[first], member[first]
    if ((ids[1:] > ids[:-1]) | (members[1:] != members[:-1])).all():
        return np.repeat(first + lengths - 1, lengths)
    keys = pl.DataFrame({"member": member, "session": session_id, "row": np.arange(len(member))})
    return keys.select(pl.col("row").max().over("member", "session"))["row"].to_numpy()


def starts_by_block(member: np.ndarray, rows: int) -> np.ndarray:
    """Return whether a block of rows starts at each row, as every `rows`-th of a member, bool [N].

    Args:
        member: int64 [N].
        rows: number of rows of a session; the last block of a member may have fewer.
    """
    first, lengths = segments(member)
    result: np.ndarray = (np.arange(len(member)) - np.repeat(first, lengths)) % rows == 0
    return result


def split_last(member: np.ndarray, timed: np.ndarray) -> np.ndarray:
    """Return the splits of leave-one-out, int8 [N]: 2 for the last row of a member, 1 for the last
    but one, else 0. All rows of a member with fewer than three timed rows are in split 0.

    Args:
        member: int64 [N], sorted.
        timed: bool [N], whether a row has a time; untimed rows precede timed ones.
    """
    first, lengths = segments(member)
    chosen = np.add.reduceat(timed, first, dtype=np.int64) >= 3 if len(first) else first > 0
    last = (first + lengths - 1)[chosen]
    split = np.zeros(len(member), np.int8)
    split[last], split[last - 1] = 2, 1
    return split


def number_sessions(member: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return the session number of each row, counted from 0 per member, int32 [N]."""
    count = np.cumsum(starts)
    first, lengths = segments(member)
    result: np.ndarray = (count - np.repeat(count[first], lengths)).astype(np.int32)
    return result


def _after_context(time_ms: np.ndarray) -> np.ndarray:
    """Return whether the previous row is untimed, bool [N]."""
    after = np.zeros(len(time_ms), bool)
    after[1:] = time_ms[:-1] == UNTIMED
    return after
