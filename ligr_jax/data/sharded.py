"""A column of all shards as one array, so that the cost of a gather does not grow with the shards.

The shards of prepared data are memory-mapped files. All of them lie in the address space of this
process, so one array that begins at the lowest part of a column reaches every other part by an
offset. A batch whose windows come from a thousand shards is then read by one gather, not by a
thousand. Impression numbers are checked first, so no address outside of a part is read.

Windows are runs of consecutive impressions, so most of a batch is copied in blocks: `locate` cuts
the positions into blocks of equal length, a gather copies for each block the run that begins with
its first impression, and then replaces the positions that belong to another run.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_BLOCK = 32  # positions; longer blocks cost less per position, and more positions are replaced
_REPLACED = 0.5  # share of replaced positions above which blocks take more time than they save


@dataclass(frozen=True)
class Located:
    """Impression numbers, and where a gather reads them.

    Attributes:
        index: int64 array of any shape, impression numbers.
        starts: int64 [shards + 1], number of the first impression of each shard, and of all.
        first: int64 [blocks], impression at the first position of each block. A shard has all
            impressions of the run that begins with it. Without blocks the array is empty.
        first_shard: int64 [blocks], the shard of `first`.
        rest: int64 [rest], positions in the flat `index` that blocks do not have.
        rest_index: int64 [rest], impressions at these positions.
        rest_shard: int64 [rest], their shards.
    """

    index: np.ndarray
    starts: np.ndarray
    first: np.ndarray
    first_shard: np.ndarray
    rest: np.ndarray
    rest_index: np.ndarray
    rest_shard: np.ndarray

    def by_shard(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each shard with impressions, and a mask of these impressions like `index`."""
        for shard in np.unique(self._shard):
            yield int(shard), self._shard == shard

    @functools.cached_property
    def _shard(self) -> np.ndarray:
        return _shard_of(self.index, self.starts)


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
    flat = index.ravel()
    first = flat[::_BLOCK]
    first_shard = _shard_of(first, starts)
    # A block never leaves its shard. Positions for which it begins too early are replaced.
    first = np.minimum(first, starts[first_shard + 1] - _BLOCK)
    rest = _other_runs(flat, first)
    if len(rest) > _REPLACED * flat.size or (first < starts[first_shard]).any():
        first, first_shard, rest = first[:0], first_shard[:0], np.arange(flat.size)
    rest_index = flat[rest]
    return Located(
        index=index,
        starts=starts,
        first=first,
        first_shard=first_shard,
        rest=rest,
        rest_index=rest_index,
        rest_shard=_shard_of(rest_index, starts),
    )


def _shard_of(index: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return the shards of impressions, int64 like `index`."""
    if len(starts) == 2:
        return np.zeros(index.shape, np.int64)
    shard: np.ndarray = np.searchsorted(starts, index, side="right") - 1
    return shard


def _other_runs(flat: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return the positions whose impression is not in the run that begins with their block's."""
    whole = len(flat) // _BLOCK * _BLOCK
    step = np.arange(_BLOCK)
    differs = np.empty(flat.shape, bool)
    runs = first[: whole // _BLOCK, None] + step
    np.not_equal(flat[:whole].reshape(runs.shape), runs, out=differs[:whole].reshape(runs.shape))
    differs[whole:] = flat[whole:] != first[-1:] + step[: len(flat) - whole]
    return np.flatnonzero(differs)


class ShardedColumn:
    """One column of numbers, whose parts are views of the mapped files of the shards."""

    def __init__(self, parts: Sequence[np.ndarray], starts: np.ndarray) -> None:
        """
        Args:
            parts: arrays [impressions of the shard] of one dtype. Arrow aligns them to 8 bytes.
            starts: int64 [shards + 1], as in `locate`.
        """
        self._parts = parts  # keep the files mapped
        # Position in `_flat` of impression i of shard s: i + shift[s].
        self._shift: np.ndarray | None = None
        filled = [part for part in parts if len(part)] or list(parts[:1])
        lowest, highest = min(filled, key=_address), max(filled, key=_address)
        self._flat = lowest
        size = lowest.itemsize
        if len(filled) > 1:
            span = (_address(highest) - _address(lowest)) // size + len(highest)
            self._flat = np.lib.stride_tricks.as_strided(lowest, (span,), (size,), writeable=False)
            offset = np.array([_address(part) - _address(lowest) for part in parts])
            self._shift = offset // size - starts[:-1]
        # Row p has the positions p .. p + _BLOCK of `_flat`.
        shape = (max(0, len(self._flat) - _BLOCK + 1), _BLOCK)
        self._blocks = np.lib.stride_tricks.as_strided(
            self._flat, shape, (size, size), writeable=False
        )

    def take(self, located: Located) -> np.ndarray:
        """Return the values of impressions, in the shape of their numbers."""
        shape = located.index.shape
        rest: np.ndarray = self._flat.take(self._shifted(located.rest_index, located.rest_shard))
        if not len(located.first):
            return rest.reshape(shape)
        values = self._blocks[self._shifted(located.first, located.first_shard)].ravel()
        values[located.rest] = rest
        taken: np.ndarray = values[: located.index.size].reshape(shape)
        return taken

    def _shifted(self, index: np.ndarray, shard: np.ndarray) -> np.ndarray:
        return index if self._shift is None else index + self._shift[shard]


def _address(part: np.ndarray) -> int:
    address: int = part.__array_interface__["data"][0]
    return address
