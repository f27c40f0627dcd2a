"""Packing as a plan: which slice of which member goes where in which row.

From members' lengths alone, two vectorized steps:

1. `windows`: a member's impressions of a split are cut into windows of at most N impressions, each
   with the history before it; every impression of the split is a target exactly once.
2. `pack`: windows are packed into rows of N impressions by repeating greedy patterns over the
   histogram of their lengths: the cost depends on the number of distinct lengths, not of windows.

A row is then a pure function of its number: a shuffle is global, any number of workers or hosts
sees the same batches, and a sweep over T plans again without preparing again.
"""

from dataclasses import dataclass

import numpy as np

from ligr_jax.data.records import Records


@dataclass(frozen=True)
class Windows:
    """Slices of members: impressions start..stop, of which target..stop are targets (int64 [n])."""

    start: np.ndarray
    target: np.ndarray
    stop: np.ndarray

    def __len__(self) -> int:
        return len(self.start)


@dataclass(frozen=True)
class Plan:
    """Rows of at most `capacity` impressions: row r holds windows bounds[r] .. bounds[r + 1].

    Attributes:
        capacity: N.
        start, target, stop: int64 [windows], in row order.
        bounds: int64 [rows + 1].
    """

    capacity: int
    start: np.ndarray
    target: np.ndarray
    stop: np.ndarray
    bounds: np.ndarray

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def impressions(self) -> int:
        """Impressions in all rows, context included."""
        return int((self.stop - self.start).sum())

    @property
    def targets(self) -> int:
        return int((self.stop - self.target).sum())

    @property
    def packing(self) -> float:
        """Share of positions that are not padding."""
        return self.impressions / max(1, len(self) * self.capacity)

    def gather(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the impressions of `rows` come from; row -1 is all padding.

        Returns, each [len(rows), capacity]: impression number (int64, -1 in padding), window number
        within the row counted from 1 (int32, 0 in padding), whether it is a target (bool).
        """
        index = np.full((len(rows), self.capacity), -1, np.int64)
        window = np.zeros((len(rows), self.capacity), np.int32)
        is_target = np.zeros((len(rows), self.capacity), bool)
        first = self.bounds[rows]
        count = np.where(rows < 0, 0, self.bounds[rows + 1] - first)
        row = np.repeat(np.arange(len(rows)), count)
        ordinal = _ranges(count)
        w = np.repeat(first, count) + ordinal
        length = self.stop[w] - self.start[w]
        # A window begins where the windows before it in the same row end.
        filled = np.cumsum(length) - length
        begin = filled - filled[np.repeat(np.cumsum(count) - count, count)]
        within = _ranges(length)
        at = (np.repeat(row, length), np.repeat(begin, length) + within)
        index[at] = np.repeat(self.start[w], length) + within
        window[at] = np.repeat(ordinal + 1, length)
        is_target[at] = index[at] >= np.repeat(self.target[w], length)
        return index, window, is_target


def _ranges(counts: np.ndarray) -> np.ndarray:
    """0..counts[0]-1, 0..counts[1]-1, ... one after the other."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def windows(
    records: Records, split: str, capacity: int, context: float, keep: np.ndarray
) -> Windows:
    """Cuts each kept member's impressions of `split` into windows of at most `capacity`.

    A window that starts after the member's first impression leaves `context * capacity` places to
    earlier history, fewer where its first session needs them. Windows end where a session ends,
    unless what is left of one session alone is longer than a row.

    Args:
        keep: bool [members], the members to take.
    """
    before = 1 + list(records.manifest.splits).index(split)
    member_start = records.offsets[:-1]
    target = member_start + records.counts[:, :before].sum(1, dtype=np.int64)
    limit = target + records.counts[:, before]
    active = np.flatnonzero(keep & (limit > target))
    session_ends = records.session_ends()
    fresh = max(1, int(capacity * (1 - context)))
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    at = target[active]
    while len(active):
        first, end = member_start[active], limit[active]
        reach = np.maximum(first + capacity, at + fresh)
        # The last session that ends within reach, or else all of the first one that fits a row.
        whole = session_ends[np.searchsorted(session_ends, reach, side="right") - 1]
        one = session_ends[np.searchsorted(session_ends, at, side="right")]
        stop = np.where(whole > at, whole, np.minimum(one, at + capacity))
        stop = np.where(reach < end, np.minimum(stop, end), end)
        parts.append((np.maximum(first, stop - capacity), at, stop))
        more = stop < end
        active, at = active[more], stop[more]
    if not parts:
        empty = np.zeros(0, np.int64)
        return Windows(empty, empty, empty)
    return Windows(*(np.concatenate(p) for p in zip(*parts)))


def pack(cut: Windows, capacity: int, rng: np.random.Generator) -> Plan:
    """Packs windows into rows of `capacity`, at random within a length.

    Greedy pattern: fill a row with the longest window that still fits, again and again; repeat that
    pattern as often as the histogram of lengths allows; go on with what is left.
    """
    length = (cut.stop - cut.start).astype(np.int64)
    shuffled = rng.permutation(len(cut))
    by_length = shuffled[np.argsort(length[shuffled], kind="stable")]
    left = np.bincount(length, minlength=capacity + 1)
    taken = np.cumsum(left) - left  # next unused place of each length in by_length
    order: list[np.ndarray] = []
    sizes: list[np.ndarray] = []
    while left.any():
        pattern = _pattern(left, capacity)
        lengths, multiple = np.unique(pattern, return_counts=True)
        repeats = int((left[lengths] // multiple).min())
        columns = []
        for size, times in zip(lengths[::-1], multiple[::-1]):
            n = repeats * times
            columns.append(by_length[taken[size] : taken[size] + n].reshape(repeats, times))
            taken[size] += n
            left[size] -= n
        order.append(np.concatenate(columns, 1).ravel())
        sizes.append(np.full(repeats, len(pattern), np.int64))
    chosen = np.concatenate(order) if order else np.zeros(0, np.int64)
    bounds = np.concatenate([[0], np.cumsum(np.concatenate(sizes))]) if sizes else np.zeros(1, int)
    return Plan(
        capacity, cut.start[chosen], cut.target[chosen], cut.stop[chosen], bounds.astype(np.int64)
    )


def _pattern(left: np.ndarray, capacity: int) -> list[int]:
    """Lengths of one row: always the longest that fits and is left."""
    available = np.flatnonzero(left)
    used: dict[int, int] = {}
    row: list[int] = []
    room = capacity
    i = int(np.searchsorted(available, room, side="right")) - 1
    while i >= 0:
        size = int(available[i])
        times = min(room // size, int(left[size]) - used.get(size, 0))
        row += [size] * times
        used[size] = used.get(size, 0) + times
        room -= size * times
        i = min(i, int(np.searchsorted(available, room, side="right"))) - 1
    return row


def make_plan(
    records: Records,
    split: str,
    capacity: int,
    context: float = 0.5,
    fraction: float = 1.0,
    seed: int = 0,
) -> Plan:
    """Windows of a split, packed; `fraction` keeps that share of the members, nested in growth."""
    rng = np.random.default_rng([seed, capacity])
    # The same permutation whatever the fraction: a smaller share is a subset of a larger one.
    rank = np.random.default_rng(0).permutation(len(records.member_ids))
    keep = rank < fraction * len(rank)
    return pack(windows(records, split, capacity, context, keep), capacity, rng)
