"""A packing plan: which impressions are at every position of every row, as arrays of indices.

`ligr_jax.data.packing` makes plans. The file of a plan is mapped by all processes of a host.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ligr_jax.atomic import atomic_path


class PlacedRows(NamedTuple):
    """The source of every position of some rows, and the segments of their positions.

    A segment is a window, or the padding of a row. Segments are not empty, and are in the order of
    the flat positions.

    Attributes:
        impression: int64 [B, N], number of the impression, -1 in padding.
        window: int32 [B, N], number of the window within its row, from 1; 0 in padding.
        is_target: bool [B, N], whether the position is a target.
        padding: int64 [padding], flat positions without an impression.
        begin: int64 [segments], first flat position of each segment.
        size: int64 [segments], number of positions of each segment.
    """

    impression: np.ndarray
    window: np.ndarray
    is_target: np.ndarray
    padding: np.ndarray
    begin: np.ndarray
    size: np.ndarray


@dataclass(frozen=True)
class PackingPlan:
    """Rows of at most `capacity` impressions; row r holds windows bounds[r] .. bounds[r + 1].

    Attributes:
        capacity: N, impressions of a row.
        start, target, stop: int64 [windows], first impression, first target and end (exclusive) of
            each window, in row order.
        bounds: int64 [rows + 1].
        file: the file that the arrays are mapped from, if there is one (`ligr_jax.data.plans`).
    """

    capacity: int
    start: np.ndarray
    target: np.ndarray
    stop: np.ndarray
    bounds: np.ndarray
    file: Path | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle only the path of a plan with a file, so that a loader process maps it."""
        if self.file is not None:
            return read_plan, (self.file,)
        return PackingPlan, (self.capacity, self.start, self.target, self.stop, self.bounds)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.bounds) - 1

    @property
    def impressions(self) -> int:
        """Number of impressions in all rows, context included."""
        return int((self.stop - self.start).sum())

    @property
    def targets(self) -> int:
        """Number of targets in all rows."""
        return int((self.stop - self.target).sum())

    @property
    def packing(self) -> float:
        """Packing efficiency: the share of positions that are not padding."""
        return self.impressions / max(1, len(self) * self.capacity)

    def gather(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return `impression`, `window` and `is_target` of `place`.

        Args:
            rows: int [B], row numbers; -1 stands for a row of padding.
        """
        placed = self.place(rows)
        return placed.impression, placed.window, placed.is_target

    def place(self, rows: np.ndarray) -> PlacedRows:
        """Return the source of every position of some rows.

        Args:
            rows: int [B], row numbers; -1 stands for a row of padding.
        """
        # One entry per window of the batch: its row in the batch and its ordinal in that row.
        first_window = self.bounds[rows]
        window_count = np.where(rows < 0, 0, self.bounds[rows + 1] - first_window)
        row = np.repeat(np.arange(len(rows)), window_count)
        ordinal = _concatenated_ranges(window_count)
        w = np.repeat(first_window, window_count) + ordinal
        start, length = self.start[w], self.stop[w] - self.start[w]

        # One entry per segment: the windows of a row, and then the padding at its end.
        segments = len(w) + len(rows)
        of_window = np.arange(len(w)) + row
        of_padding = np.cumsum(window_count) + np.arange(len(rows))
        size = np.zeros(segments, np.int64)
        size[of_window] = length
        size[of_padding] = self.capacity - np.bincount(row, length, len(rows)).astype(np.int64)
        begin = np.cumsum(size) - size
        # Impression number minus position, which is constant in a window.
        offset = np.zeros(segments, np.int64)
        offset[of_window] = start - begin[of_window]
        number = np.zeros(segments, np.int32)
        number[of_window] = ordinal + 1
        first_target = np.full(segments, np.iinfo(np.int64).max)
        first_target[of_window] = self.target[w]

        # One entry per position of the batch.
        shape = (len(rows), self.capacity)
        window = np.repeat(number, size)
        index = np.repeat(offset, size)
        index += np.arange(index.size)
        is_target = index >= np.repeat(first_target, size)
        padding = np.flatnonzero(window == 0)
        index[padding] = -1
        filled = size > 0
        return PlacedRows(
            impression=index.reshape(shape),
            window=window.reshape(shape),
            is_target=is_target.reshape(shape),
            padding=padding,
            begin=begin[filled],
            size=size[filled],
        )


def write_plan(path: Path, plan: PackingPlan) -> None:
    """Write a plan atomically: int64 capacity, windows and rows, then its four arrays."""
    windows, rows = len(plan.start), len(plan)
    with atomic_path(path) as part, part.open("wb") as file:
        header = {"descr": "<i8", "fortran_order": False, "shape": (3 * windows + rows + 4,)}
        np.lib.format.write_array_header_1_0(file, header)
        for array in (
            np.array([plan.capacity, windows, rows]),
            plan.start,
            plan.target,
            plan.stop,
            plan.bounds,
        ):
            array.tofile(file)


def read_plan(path: Path) -> PackingPlan:
    """Map the file of a plan.

    Raises:
        OSError: there is no such file.
        ValueError: the file is damaged.
    """
    values = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    capacity, windows, rows = (int(n) for n in values[:3])
    if len(values) != 3 * windows + rows + 4 or values[-1] != windows:
        raise ValueError(f"{path} is not a packing plan")
    os.utime(path)
    start, target, stop = values[3 : 3 + 3 * windows].reshape(3, windows)
    return PackingPlan(capacity, start, target, stop, values[3 + 3 * windows :], file=path)


def _concatenated_ranges(counts: np.ndarray) -> np.ndarray:
    """Return 0..counts[0]-1, 0..counts[1]-1, ... as one array."""
    result: np.ndarray = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return result
