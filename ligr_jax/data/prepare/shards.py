"""Second pass: sort a partition into member histories, and write it as a shard."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ligr_jax.data.bags import Bags
from ligr_jax.data.columns import action_column, feature_column
from ligr_jax.data.manifest import CONTEXT_TARGETS, SPLITS
from ligr_jax.data.prepare.duplicates import repeated_rows, superseded_rows
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.prepare.order import BLOCK, times_by_order
from ligr_jax.data.prepare.sessions import (
    number_sessions,
    split_last,
    starts_by_block,
    starts_by_gap,
    starts_by_id,
)
from ligr_jax.data.prepare.sorting import sort_by_member_and_time
from ligr_jax.data.schema import MEMBER, SESSION, TIME, BadInput
from ligr_jax.data.sources.source import ROW_DIGEST
from ligr_jax.data.sources.validate import UNTIMED
from ligr_jax.ops.segments import segments


@dataclass(frozen=True)
class Histories:
    """The rows of a partition that a shard keeps, grouped by member.

    Attributes:
        order: int64 [N], indices of the kept rows, sorted by member and time. Untimed context rows
            precede the timed rows of their member; rows of equal time are in file order.
        first: int64 [members], position of each member's first row in `order`.
        member: int64 [N], member ids.
        time_ms: int64 [N], milliseconds, `UNTIMED` for context.
        split: int8 [N], number of the split, -1 for context.
        session: int32 [N], counted from 0 per member.
        counts: numbers of kept, dropped and merged rows and sessions.
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
        """Offsets of the members in `order`, int32 [members + 1]."""
        return np.append(self.first, len(self.order)).astype(np.int32)

    def per_member(self, rows: np.ndarray) -> np.ndarray:
        """Return the number of rows of each member for which `rows` (bool [N]) is true, int32."""
        if not len(self.first):
            return np.zeros(0, np.int32)
        return np.add.reduceat(rows, self.first, dtype=np.int32)


def read_partition(path: Path, rows: int) -> pa.Table:
    """Map the rows of a partition into memory.

    Args:
        path: file of the partition.
        rows: number of rows that were written to it.

    Raises:
        BadInput: the file is missing or has another number of rows.
    """
    try:
        table = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
        problem = f"it has {table.num_rows:,} rows"
    except (OSError, pa.ArrowInvalid) as e:
        table, problem = None, str(e).split(". Detail")[0]
    if table is None or table.num_rows != rows:
        raise BadInput(
            f"{path}: {rows:,} rows were written to this file and cannot be read again "
            f"({problem}); another program changed the file: prepare again"
        )
    return table


def sort_histories(
    rows: pa.Table,
    edges: tuple[int, ...],
    options: PrepareOptions,
    time_is_order: bool = False,
    one_label: Sequence[str] = (),
) -> Histories:
    """Sort a partition into histories, drop rows that are not needed, and find sessions.

    Args:
        rows: the partition.
        edges: start and end times of the splits, milliseconds.
        options: what ends a session, and how histories are split.
        time_is_order: see `LogSchema`.
        one_label: actions for which rows of one member, item and time are one impression, whose
            labels are those of its last row; () keeps all of its rows.

    Returns:
        The kept rows. Dropped are duplicates, superseded rows, rows after the end of the last
        split, and members without timed rows.
    """
    member, time_ms = column_array(rows, MEMBER), column_array(rows, TIME)
    order = sort_by_member_and_time(member, time_ms)
    member, time_ms = member[order], time_ms[order]

    # Drop rows that a later one supersedes, before duplicates: the later one may be a duplicate.
    superseded = 0
    if one_label:
        labels = {a: column_array(rows, action_column(a))[order] for a in one_label}
        item = column_array(rows, feature_column("item_id"))[order]
        current = ~superseded_rows(member, time_ms, item, labels)
        superseded = int((~current).sum())
        order, member, time_ms = order[current], member[current], time_ms[current]

    # Drop duplicates, rows after the test split, and members that have only context.
    repeated = repeated_rows(member, time_ms, column_array(rows, ROW_DIGEST)[order])
    late = (time_ms >= edges[-1]) & (not time_is_order)
    kept = ~(repeated | late)
    has_target = _any_per_member(member, kept & (time_ms != UNTIMED))
    unused = kept & ~has_target
    kept &= has_target
    order, member, time_ms = order[kept], member[kept], time_ms[kept]
    if time_is_order:
        time_ms = times_by_order(member)

    # Sessions by the ids of the log, or else by gaps; without times, by numbers of rows.
    merged = 0
    if SESSION in rows.column_names:
        starts, merged = starts_by_id(member, time_ms, column_array(rows, SESSION)[order])
    elif time_is_order:
        starts = starts_by_block(member, BLOCK)
    else:
        starts = starts_by_gap(member, time_ms, options.session_gap_ms)
    timed = time_ms != UNTIMED
    if options.context_block is not None:
        blocks = starts_by_block(member, options.context_block)
        starts = np.where(timed, starts, blocks)
    context = int((~timed).sum())
    if options.leave_one_out:
        split = split_last(member, timed)
    else:
        split = np.searchsorted(np.array(edges[1:-1]), time_ms, side="right").astype(np.int8)
    return Histories(
        order=order,
        first=segments(member)[0],
        member=member,
        time_ms=time_ms,
        split=np.where(timed, split, np.int8(-1)),
        session=number_sessions(member, starts),
        counts={
            "impressions": int(timed.sum()),
            "context": context,
            **({} if options.context_block is None else {CONTEXT_TARGETS: context}),
            "context_without_impressions": int(unused.sum()),
            "sessions": int(starts[timed].sum()),
            "sessions_merged": merged,
            "duplicates": int(repeated.sum()),
            **({"superseded": superseded} if superseded else {}),
            "after_test_end": int((late & ~repeated).sum()),
        },
    )


def column_array(rows: pa.Table, name: str) -> np.ndarray:
    """Return a column of numbers as a NumPy array [N], or [N, W] for vectors."""
    chunked = rows[name]
    if pa.types.is_fixed_size_list(chunked.type):
        flat = chunked.combine_chunks().flatten()
        vectors: np.ndarray = flat.to_numpy(zero_copy_only=False)
        return vectors.reshape(-1, chunked.type.list_size)
    numbers: np.ndarray = chunked.to_numpy()
    return numbers


def column_bags(rows: pa.Table, name: str) -> Bags:
    """Return a column of bags."""
    return Bags.from_arrow(rows[name].combine_chunks())


def write_shard(
    path: Path, kept: Histories, columns: Iterable[tuple[str, np.ndarray | Bags]]
) -> None:
    """Write a shard.

    Args:
        path: file to write.
        kept: the histories.
        columns: names and values [N] of the list columns, in order of `kept`.
    """
    offsets = pa.array(kept.offsets)
    arrays: dict[str, pa.Array] = {
        "member_id": pa.array(kept.member[kept.first]),
        "n_context": pa.array(kept.per_member(kept.split == -1)),
    }
    for k, name in enumerate(SPLITS):
        arrays[f"n_{name}"] = pa.array(kept.per_member(kept.split == k))
    for name, values in columns:
        arrays[name] = pa.ListArray.from_arrays(offsets, to_arrow(values))
    write_batch(pa.RecordBatch.from_pydict(arrays), path)


def to_arrow(values: np.ndarray | Bags) -> pa.Array:
    """Return a column of numbers, vectors or bags as an Arrow array."""
    if isinstance(values, Bags):
        return values.to_arrow()
    return fixed_size_lists(values) if values.ndim == 2 else pa.array(values)


def fixed_size_lists(values: np.ndarray) -> pa.Array:
    """Return vectors [N, W] as a fixed_size_list<float32>[W] array."""
    flat = pa.array(np.ascontiguousarray(values, np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def write_batch(batch: pa.RecordBatch, path: Path) -> None:
    """Write an uncompressed Arrow IPC file of one record batch."""
    with path.open("wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


def _any_per_member(member: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """Return whether any row of a row's member is marked, bool [N]; rows are grouped by member."""
    if not len(member):
        return marked
    first, lengths = segments(member)
    return np.repeat(np.logical_or.reduceat(marked, first), lengths)
