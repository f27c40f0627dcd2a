"""New impressions in the history of a member, as `ligr prepare` would have merged them.

The merged history is sorted by time, and impressions of equal time keep their order. An impression
that equals another one of the same time in all values is dropped: this is the rule of `prepare`,
and it makes a repeated append harmless. Sessions are numbered by the functions of `prepare`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ligr_jax.data.manifest import MISSING
from ligr_jax.data.prepare.sessions import number_sessions, starts_by_gap, starts_by_id
from ligr_jax.data.prepare.sorting import stable_argsort
from ligr_jax.data.schema import SESSION, TIME
from ligr_jax.serve.activity_about import ActivityAbout
from ligr_jax.serve.activity_file import CHUNK, KEPT, Chunk
from ligr_jax.serve.activity_layout import Impressions, decoded


class Merged(NamedTuple):
    """A history with new impressions.

    Attributes:
        chunks: the chunks that replace all chunks from the number of the first one on; [] if
            nothing changed.
        added: number of impressions that were added.
        repeated: number of impressions that the history already had.
        late: number of impressions that are older than one that was dropped.
    """

    chunks: Sequence[Chunk]
    added: int
    repeated: int
    late: int


def merge(old: Sequence[Chunk], new: Impressions, about: ActivityAbout) -> Merged:
    """Merge new impressions into the last chunks of a history.

    Args:
        old: all chunks from one that begins before the first new impression on, or all chunks of
            the member. Sessions by ids need all chunks.
        new: impressions of the member, sorted by time.
        about: description of the store.
    """
    # Without repetitions, and without impressions that compaction would have dropped.
    history = decoded(new.records.dtype, old)
    is_repeated = _is_repeated(history, new)
    after_ms = old[0].after_ms if old else KEPT
    is_late = ~is_repeated & (new.records[TIME] <= after_ms)
    kept = np.flatnonzero(~is_repeated & ~is_late)
    repeated, late = int(is_repeated.sum()), int(is_late.sum())
    if not len(kept):
        return Merged([], 0, repeated, late)

    # Histories in order of time, with the numbers of their sessions.
    order = stable_argsort(np.concatenate([history.records[TIME], new.records[TIME][kept]]))
    merged = Impressions.concatenate([history, new[kept]])[order]
    first_session = history.records["session"][0] if len(history) else 0
    session = first_session + _sessions(merged, about)
    changed = order != np.arange(len(order))
    changed[len(history) :] = True
    changed |= merged.records["session"] != session
    merged.records["session"] = session
    return Merged(_chunks(old, merged, int(changed.argmax())), len(kept), repeated, late)


def _is_repeated(history: Impressions, new: Impressions) -> np.ndarray:
    """Return whether each new impression equals an earlier one of the same time, bool [n]."""
    near = np.flatnonzero(np.isin(history.records[TIME], new.records[TIME]))
    seen = set(_keys(history[near]))
    repeated = np.zeros(len(new), bool)
    for row, key in enumerate(_keys(new)):
        repeated[row] = key in seen
        seen.add(key)
    return repeated


def _keys(impressions: Impressions) -> list[bytes]:
    """Return the values of each impression as bytes, without its session.

    The session is left out because prepared data do not have its id.
    """
    records = impressions.records.copy()
    records["session"] = records[SESSION] = 0
    ids = impressions.ids
    begin, end = ids.offsets[:-1].tolist(), ids.offsets[1:].tolist()
    values = ids.values
    return [r.tobytes() + values[b:e].tobytes() for r, b, e in zip(records, begin, end)]


def _sessions(merged: Impressions, about: ActivityAbout) -> np.ndarray:
    """Return the session of each impression, counted from that of the first one, int32."""
    time_ms = merged.records[TIME]
    member = np.zeros(len(merged), np.int64)
    if about.sessions == "gap":
        return number_sessions(member, starts_by_gap(member, time_ms, about.gap_ms))
    # Impressions of prepared data have the number of their session in place of its id.
    ids = merged.records[SESSION]
    prepared = ids == MISSING
    pairs = np.stack([prepared, np.where(prepared, merged.records["session"], ids)], 1)
    _, session_id = np.unique(pairs, axis=0, return_inverse=True)
    return number_sessions(member, starts_by_id(member, time_ms, session_id.reshape(-1))[0])


def _chunks(old: Sequence[Chunk], merged: Impressions, changed: int) -> list[Chunk]:
    """Cut a history into chunks again, from the first impression that changed on.

    Args:
        old: its chunks before.
        merged: the history.
        changed: position of the first impression that differs.
    """
    # Chunks before the change are kept, also a chunk that is full and ends there.
    number = old[0].number if old else 0
    first = 0
    after_ms = old[0].after_ms if old else KEPT
    for chunk in old:
        is_full = chunk.impressions == CHUNK or chunk is not old[-1]
        if first + chunk.impressions > changed or not is_full:
            break
        first += chunk.impressions
        number = chunk.number + 1
        after_ms = KEPT
    out: list[Chunk] = []
    for low in range(first, len(merged), CHUNK):
        high = min(low + CHUNK, len(merged))
        chunk = Chunk(
            number=number + len(out),
            first_ms=int(merged.records[TIME][low]),
            impressions=high - low,
            after_ms=KEPT if out else after_ms,
            records=merged.record_bytes(low, high),
            ids=merged.id_bytes(low, high),
        )
        out.append(chunk)
    return out
