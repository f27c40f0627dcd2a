"""Compaction of an activity store: old impressions are dropped, and the file shrinks.

Members are compacted in short transactions, so readers and writers wait little.
"""

import logging
import sqlite3

import numpy as np

from ligr_jax.data.schema import TIME
from ligr_jax.serve.activity_file import EARLIEST, ActivityFile, Chunk, insert_chunks
from ligr_jax.serve.activity_layout import decoded

_log = logging.getLogger(__name__)

_MEMBERS = 500  # members of a transaction
_PAGES = 2000  # pages of the file that are freed in a transaction


def compact_file(
    file: ActivityFile, record: np.dtype, newest: int | None, before_ms: int | None
) -> int:
    """Drop old impressions; see `ActivityStore.compact`.

    Args:
        file: the file.
        record: dtype of a record.
        newest: the most impressions per member that are kept; None: any number.
        before_ms: impressions before this time are dropped; None: none.

    Returns:
        The number of impressions that were dropped.
    """
    dropped = 0
    member = EARLIEST
    while members := file.compactable(member, newest, before_ms, _MEMBERS):
        with file.writing() as connection:
            dropped += sum(_drop(file, connection, m, record, newest, before_ms) for m in members)
        member = members[-1]
    _log.info(f"dropped {dropped:,} impressions")
    file.shrink(_PAGES)
    return dropped


def _drop(
    file: ActivityFile,
    connection: sqlite3.Connection,
    member: int,
    record: np.dtype,
    newest: int | None,
    before_ms: int | None,
) -> int:
    """Drop the old impressions of a member, and return their number."""
    # Number of impressions to drop; only the chunk of the time is read.
    outline = file.outline(member)
    ends = np.cumsum([size for _, _, size in outline])
    total = int(ends[-1]) if outline else 0
    drop = 0 if newest is None else max(0, total - newest)
    if before_ms is not None:
        k = sum(first_ms < before_ms for _, first_ms, _ in outline) - 1
        if k >= 0:
            times = decoded(record, [file.chunk(member, outline[k][0])]).records[TIME]
            begin = int(ends[k]) - len(times)
            drop = max(drop, begin + int(np.searchsorted(times, before_ms)))
    if not drop:
        return 0

    # The chunk of the last impression that is dropped, and the first chunk that is kept.
    k = int(np.searchsorted(ends, drop))
    number = outline[k][0]
    chunk = decoded(record, [file.chunk(member, number)])
    first = len(chunk) - (int(ends[k]) - drop)
    after_ms = int(chunk.records[TIME][first - 1])
    if first == len(chunk):
        number, first = number + 1, 0
        chunk = decoded(record, [file.chunk(member, number)] if drop < total else [])
    connection.execute("DELETE FROM chunks WHERE member = ? AND number <= ?", (member, number))
    if drop < total:
        kept = Chunk(
            number=number,
            first_ms=int(chunk.records[TIME][first]),
            impressions=len(chunk) - first,
            after_ms=after_ms,
            records=chunk.record_bytes(first, len(chunk)),
            ids=chunk.id_bytes(first, len(chunk)),
        )
        insert_chunks(connection, [(member, kept)])
    return drop
