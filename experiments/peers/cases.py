"""Inputs of an attention call from a seed: the same arrays for every contestant; NumPy only."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """B rows of T tokens without padding.

    kind: `history` over interleaved item and action tokens, `in_session` over item tokens.
    session: mean number of tokens of a session; lengths are uniform from half to one and a half
        times the mean.
    members: number of members packed in a row, with T / members tokens each.
    """

    kind: str
    tokens: int
    session: int
    members: int
    dtype: Literal["float32", "bfloat16"]
    batch: int = 8
    heads: int = 4
    width: int = 64

    @property
    def tokens_per_impression(self) -> int:
        return 2 if self.kind == "history" else 1


def qkvg(case: Case) -> list[np.ndarray]:
    """Return queries, keys, values and the gradient of the output, float32 [B, T, H, K]."""
    rng = np.random.default_rng(case.tokens)
    shape = (case.batch, case.tokens, case.heads, case.width)
    return [rng.standard_normal(shape, np.float32) for _ in range(4)]


def rows(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Return member and session, int32 [B, N], as in a batch of the pipeline."""
    rng = np.random.default_rng(case.session)
    length = case.tokens // case.tokens_per_impression // case.members
    mean = case.session / case.tokens_per_impression
    member = np.repeat(np.arange(1, case.members + 1, dtype=np.int32), length)
    session = [_sessions(rng, length, mean) for _ in range(case.batch * case.members)]
    return np.tile(member, (case.batch, 1)), np.stack(session).reshape(case.batch, -1)


def impressions(case: Case, actions: int, tables: tuple[str, ...], table_rows: int) -> Arrays:
    """Return the arrays of a batch for a whole model: ids of every table, labels, and weights."""
    rng = np.random.default_rng(0)
    member, session = rows(case)
    shape = member.shape
    return {
        "member": member,
        "session": session,
        **{f"ids/{name}": rng.integers(1, table_rows, shape, dtype=np.int32) for name in tables},
        "labels": rng.integers(0, 2, (*shape, actions), dtype=np.int8),
        "weight": np.ones(shape, np.float32),
    }


def _sessions(rng: np.random.Generator, length: int, mean: float) -> np.ndarray:
    low, high = max(1, round(0.5 * mean)), round(1.5 * mean)
    lengths = rng.integers(low, high + 1, length)
    return np.repeat(np.arange(length, dtype=np.int32), lengths)[:length]


def ranges(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return lo, hi and own, int32 [B, T]: token t sees lo <= j < hi, j == own and j == t.

    Implemented from the definition, not with the library that is measured.
    """
    member, session = rows(case)
    position = np.broadcast_to(np.arange(member.shape[1], dtype=np.int32), member.shape)
    new_member = np.diff(member, axis=1, prepend=0) != 0
    new_session = new_member | (np.diff(session, axis=1, prepend=0) != 0)
    member_start, session_start = (
        np.maximum.accumulate(np.where(new, position, 0), axis=1)
        for new in (new_member, new_session)
    )
    if case.kind == "in_session":
        same = session_start[:, :, None] == session_start[:, None, :]
        return session_start, session_start + same.sum(2, dtype=np.int32), position
    lo, hi, own = (np.repeat(2 * x, 2, axis=1) for x in (member_start, session_start, position))
    return lo, hi, own


def dense(case: Case) -> np.ndarray:
    """Return the pairs that the ranges allow, bool [B, T, T] (query, key)."""
    lo, hi, own = (x[:, :, None] for x in ranges(case))
    key = np.arange(case.tokens, dtype=np.int32)
    result: np.ndarray = (lo <= key) & (key < hi) | (key == own) | (key == key[:, None])
    return result


def allowed_pairs(case: Case) -> int:
    """Return the number of pairs that attention must compute for one head, over all rows."""
    lo, hi, own = ranges(case)
    position = np.arange(case.tokens)
    distinct = own != position
    inside = (lo <= position) & (position < hi)
    return int((hi - lo).sum() + distinct.sum() + (~inside).sum())
