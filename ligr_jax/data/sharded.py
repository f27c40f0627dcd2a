"""A column of all shards as one array, so that the cost of a gather does not grow with the shards.

The shards of prepared data are memory-mapped files. All of them lie in the address space of this
process, so one array that begins at the lowest part of a column reaches every other part by an
offset. A batch whose windows come from a thousand shards is then read by one gather, not by a
thousand. Impression numbers are checked first, so no address outside of a part is read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Located:
    """Impression numbers, and the shards that have these impressions.

    Attributes:
        index: int64 array of any shape, impression numbers.
        shard: int64 [runs], the shard of each run of impressions, in the order of `index`.
        length: int64 [runs], number of impressions of each run.
    """

    index: np.ndarray
    shard: np.ndarray
    length: np.ndarray

    def by_shard(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each shard with impressions, and a mask of these impressions like `index`."""
        of_impression = np.repeat(self.shard, self.length).reshape(self.index.shape)
        for shard in np.unique(self.shard):
            yield int(shard), of_impression == shard


def locate(index: np.ndarray, starts: np.ndarray) -> Located:
    """Find the shards of impressions.

    Args:
        index: int array of any shape, impression numbers.
        starts: int64 [shards + 1], number of the first impression of each shard, and of all.

    Raises:
        IndexError: a number is negative or too large.
    """
    if index.size and not 0 <= index.min() <= index.max() < starts[-1]:
        raise IndexError(
            f"impressions {index.min()} to {index.max()} are not all in 0..{starts[-1] - 1}"
        )
    if len(starts) == 2:
        return Located(index, np.zeros(1, np.int64), np.array([index.size]))
    # Windows are runs of consecutive numbers, so only the first of each run is searched.
    flat = index.ravel()
    begin = np.flatnonzero(flat[1:] - flat[:-1] != 1) + 1
    begin = np.concatenate([np.zeros(min(1, flat.size), np.int64), begin])
    shard = np.searchsorted(starts, flat[begin], side="right") - 1
    length = np.diff(begin, append=flat.size)
    if (flat[begin] + length > starts[shard + 1]).any():  # a run continues in the next shard
        shard = np.searchsorted(starts, flat, side="right") - 1
        length = np.ones(flat.size, np.int64)
    return Located(index, shard, length)


class ShardedColumn:
    """One column of numbers, whose parts are views of the mapped files of the shards."""

    def __init__(self, parts: Sequence[np.ndarray], starts: np.ndarray) -> None:
        """
        Args:
            parts: arrays [impressions of the shard] of one dtype. Arrow aligns them to 8 bytes.
            starts: int64 [shards + 1], as in `locate`.
        """
        self._parts = parts  # keep the files mapped
        self._shift: np.ndarray | None = None
        filled = [part for part in parts if len(part)] or list(parts[:1])
        lowest, highest = min(filled, key=_address), max(filled, key=_address)
        if len(filled) == 1:
            self._flat = lowest
            return
        size = lowest.itemsize
        span = (_address(highest) - _address(lowest)) // size + len(highest)
        self._flat = np.lib.stride_tricks.as_strided(lowest, (span,), (size,), writeable=False)
        offset = np.array([_address(part) - _address(lowest) for part in parts])
        # Position in `_flat` of impression i of shard s: i + shift[s].
        self._shift = offset // size - starts[:-1]

    def take(self, located: Located) -> np.ndarray:
        """Return the values of impressions, in the shape of their numbers."""
        index = located.index
        if self._shift is not None:
            shift = np.repeat(self._shift[located.shard], located.length)
            index = index + shift.reshape(index.shape)
        values: np.ndarray = self._flat.take(index)
        return values


def _address(part: np.ndarray) -> int:
    address: int = part.__array_interface__["data"][0]
    return address
