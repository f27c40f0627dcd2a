"""Pass 2: one partition of rows in file order becomes one shard of sorted member histories."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from ligr_jax.data.bags import Bags
from ligr_jax.data.manifest import SPLITS
from ligr_jax.data.prepare.sessions import (
    number_sessions,
    sessions_merged,
    starts_by_gap,
    starts_by_id,
)
from ligr_jax.data.schema import MEMBER, SESSION, TIME, BadInput
from ligr_jax.data.sources.source import ROW_DIGEST
from ligr_jax.data.sources.validate import UNTIMED


@dataclass(frozen=True)
class Histories:
    """Which rows of a partition a shard keeps, in which order, and how they fall into members.

    order: int64 [N], the kept rows: by member, context first, then by time, ties in file order.
    first: int64 [members], position of each member's first row in `order`.
    split: int8 [N], -1 for context, else the number of the split.
    session: int32 [N].
    counts: what was dropped or merged on the way.
    """

    order: np.ndarray
    first: np.ndarray
    member: np.ndarray
    time_ms: np.ndarray
    split: np.ndarray
    session: np.ndarray
    counts: Mapping[str, int]

    @property
    def offsets(self) -> np.ndarray:
        """int32 [members + 1]."""
        return np.append(self.first, len(self.order)).astype(np.int32)

    def per_member(self, rows: np.ndarray) -> np.ndarray:
        """int32 [members]: how many of each member's rows are marked in bool [N] `rows`."""
        if not len(self.first):
            return np.zeros(0, np.int32)
        return np.add.reduceat(rows, self.first, dtype=np.int32)


def read_partition(path: Path, rows: int) -> pa.Table:
    """The rows of a partition, memory-mapped.

    Raises:
        BadInput: the file is gone or does not hold the `rows` that were written to it.
    """
    try:
        table = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
        found = f"it has {table.num_rows:,} rows"
    except (OSError, pa.ArrowInvalid) as e:
        table, found = None, str(e).split(". Detail")[0]
    if table is None or table.num_rows != rows:
        raise BadInput(
            f"{path}: {rows:,} rows were written to this file and cannot be read again ({found}); "
            "another program has changed it: prepare again"
        )
    return table


def histories(rows: pa.Table, edges: tuple[int, ...], gap_ms: int) -> Histories:
    """Sorts a partition, drops duplicates and rows after the last split, finds sessions."""
    member, time_ms = column(rows, MEMBER), column(rows, TIME)
    order = np.lexsort((time_ms, member))  # stable: ties stay in file order
    member, time_ms = member[order], time_ms[order]

    repeated = _repeated(member, time_ms, column(rows, ROW_DIGEST)[order])
    late = time_ms >= edges[-1]
    kept = ~(repeated | late)
    has_target = _any_per_member(member, kept & (time_ms != UNTIMED))
    unused = kept & ~has_target
    kept &= has_target
    order, member, time_ms = order[kept], member[kept], time_ms[kept]

    merged = 0
    if SESSION in rows.column_names:
        ids = column(rows, SESSION)[order]
        starts = starts_by_id(member, time_ms, ids)
        merged = sessions_merged(member, time_ms, ids, starts)
    else:
        starts = starts_by_gap(member, time_ms, gap_ms)
    timed = time_ms != UNTIMED
    split = np.searchsorted(np.array(edges[1:-1]), time_ms, side="right").astype(np.int8)
    return Histories(
        order=order,
        first=np.flatnonzero(np.append(True, member[1:] != member[:-1])[: len(member)]),
        member=member,
        time_ms=time_ms,
        split=np.where(timed, split, np.int8(-1)),
        session=number_sessions(member, starts),
        counts={
            "impressions": int(timed.sum()),
            "context": int((~timed).sum()),
            "context_without_impressions": int(unused.sum()),
            "sessions": int(starts[timed].sum()),
            "sessions_merged": merged,
            "duplicates": int(repeated.sum()),
            "after_test_end": int((late & ~repeated).sum()),
        },
    )


def column(rows: pa.Table, name: str) -> np.ndarray:
    """A column of numbers as NumPy: [N], or [N, width] for a vector."""
    chunked = rows[name]
    if pa.types.is_fixed_size_list(chunked.type):
        flat = chunked.combine_chunks().flatten()
        return flat.to_numpy(zero_copy_only=False).reshape(-1, chunked.type.list_size)
    return chunked.to_numpy()


def bag_column(rows: pa.Table, name: str) -> Bags:
    """A column of bags."""
    return Bags.from_arrow(rows[name].combine_chunks())


def write_shard(
    path: Path, kept: Histories, columns: Iterable[tuple[str, np.ndarray | Bags]]
) -> None:
    """Writes the members of `kept`; `columns` are the list columns, flat: N rows each."""
    offsets = pa.array(kept.offsets)
    arrays: dict[str, pa.Array] = {
        "member_id": pa.array(kept.member[kept.first]),
        "n_context": pa.array(kept.per_member(kept.split == -1)),
    }
    for k, name in enumerate(SPLITS):
        arrays[f"n_{name}"] = pa.array(kept.per_member(kept.split == k))
    for name, values in columns:
        arrays[name] = pa.ListArray.from_arrays(offsets, arrow(values))
    write_batch(pa.RecordBatch.from_pydict(arrays), path)


def arrow(values: np.ndarray | Bags) -> pa.Array:
    """A column as Arrow has it: numbers, vectors or bags."""
    if isinstance(values, Bags):
        return values.arrow()
    return fixed_size_lists(values) if values.ndim == 2 else pa.array(values)


def fixed_size_lists(values: np.ndarray) -> pa.Array:
    """float [N, W] as a fixed_size_list<float32>[W] array."""
    flat = pa.array(np.ascontiguousarray(values, np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def write_batch(batch: pa.RecordBatch, path: Path) -> None:
    """Writes an uncompressed Arrow IPC file of one record batch."""
    with path.open("wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


def _repeated(member: np.ndarray, time_ms: np.ndarray, digest: np.ndarray) -> np.ndarray:
    """bool [N]: rows equal to an earlier one; context rows have no time and never are."""
    same = (member[1:] == member[:-1]) & (time_ms[1:] == time_ms[:-1]) & (time_ms[1:] != UNTIMED)
    in_slate = np.append(same, False) | np.append(False, same)
    at = np.flatnonzero(in_slate)
    keys = pl.DataFrame({"m": member[at], "t": time_ms[at], "d": digest[at]})
    repeated = np.zeros(len(member), bool)
    repeated[at] = ~keys.select(pl.struct("m", "t", "d").is_first_distinct()).to_series().to_numpy()
    return repeated


def _any_per_member(member: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """bool [N]: whether any row of the row's member is marked; members lie together."""
    if not len(member):
        return marked
    first = np.flatnonzero(np.append(True, member[1:] != member[:-1]))
    lengths = np.diff(np.append(first, len(member)))
    return np.repeat(np.logical_or.reduceat(marked, first), lengths)
