"""Packing of member histories into rows of equal length, as a plan of indices.

The plan is made from the members' lengths alone, in two vectorized steps:

1. `cut_windows` cuts a member's impressions of a split into windows of at most N impressions, each
   with the history that precedes it. Every impression of the split is a target exactly once.
2. `pack_windows` packs the windows into rows of N impressions. It repeats greedy patterns over the
   histogram of window lengths, so its cost depends on the number of distinct lengths and not on the
   number of windows.

A row is a pure function of its number. A shuffle is therefore global, batches do not depend on the
number of workers or hosts, and a sweep over N makes new plans from data prepared once.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ligr_jax.data.index import release_pages
from ligr_jax.data.packing_plan import PackingPlan
from ligr_jax.data.records import Records

_AT_A_TIME = 2**20  # members or windows; it limits memory, and plans do not depend on it


@dataclass(frozen=True)
class MemberWindows:
    """Slices of member histories: impressions start..stop, of which target..stop are targets.

    Attributes:
        start: int64 [windows], impression number at which the window begins.
        context: [windows], number of impressions before the first target, in a small integer type.
        length: [windows], number of impressions, in a small integer type.
    """

    start: np.ndarray
    context: np.ndarray
    length: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    @property
    def target(self) -> np.ndarray:
        """int64 [windows], impression number of the first target."""
        return self.start + self.context.astype(np.int64)

    @property
    def stop(self) -> np.ndarray:
        """int64 [windows], impression number after the last target."""
        return self.start + self.length.astype(np.int64)


def cut_windows(
    records: Records, split: str, capacity: int, context: float, keep: np.ndarray
) -> MemberWindows:
    """Cut each member's impressions of a split into windows.

    A window that starts after the member's first impression reserves `context * capacity` positions
    for earlier history, or fewer if its first session needs them. A window ends at the end of a
    session, unless the remainder of one session alone exceeds a row.

    Args:
        records: prepared data.
        split: name of the split.
        capacity: N, the largest number of impressions of a window.
        context: share of a row reserved for earlier history, in [0, 1).
        keep: bool [members], the members to take.

    Returns:
        The windows, in no particular order.
    """
    part = 1 + list(records.manifest.splits).index(split)
    # Untimed context rows, the part 0 of a history, can be targets of the train split.
    first_part = 0 if part == 1 and records.manifest.trains_on_context else part
    session_ends = records.session_ends()
    fresh = fresh_targets(capacity, context)
    small = np.uint16 if capacity < 2**16 else np.int64
    passes: list[list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = []
    for members in _parts(len(keep)):
        member_start = records.offsets[:-1][members]
        counts = records.counts[members]
        split_start = member_start + counts[:, :first_part].sum(1, dtype=np.int64)
        split_stop = member_start + counts[:, : part + 1].sum(1, dtype=np.int64)
        # Each pass cuts the next window of every member whose split is not yet covered.
        active = np.flatnonzero(keep[members] & (split_stop > split_start))
        target = split_start[active]
        for number in itertools.count():
            if not len(active):
                break
            first, end = member_start[active], split_stop[active]
            reach = np.maximum(first + capacity, target + fresh)
            # The window ends with the last session that ends within reach. If no session does, it
            # ends with its first session, or when the row is full.
            last_end = session_ends[np.searchsorted(session_ends, reach, side="right") - 1]
            next_end = session_ends[np.searchsorted(session_ends, target, side="right")]
            stop = np.where(last_end > target, last_end, np.minimum(next_end, target + capacity))
            stop = np.where(reach < end, np.minimum(stop, end), end)
            if number == len(passes):
                passes.append([])
            start = np.maximum(first, stop - capacity)
            sizes = ((target - start).astype(small), (stop - start).astype(small))
            passes[number].append((start, *sizes))
            unfinished = stop < end
            active, target = active[unfinished], stop[unfinished]
        for array in (records.offsets, records.counts, session_ends):
            release_pages(array)  # the next members have others
    if not passes:
        nothing = np.zeros(0, small)
        return MemberWindows(np.zeros(0, np.int64), nothing, nothing)
    parts = [part for of_pass in passes for part in of_pass]
    start, before_target, length = (np.concatenate(arrays) for arrays in zip(*parts))
    return MemberWindows(start=start, context=before_target, length=length)


def fresh_targets(capacity: int, context: float) -> int:
    """Return the largest number of targets of a window that is not a member's first.

    Arguments are those of `cut_windows`.
    """
    return max(1, int(capacity * (1 - context)))


def pack_windows(windows: MemberWindows, capacity: int, rng: np.random.Generator) -> PackingPlan:
    """Pack windows into rows with a greedy pattern.

    The pattern of a row is the longest window that fits, then the longest window that fits into the
    remainder, and so on. The pattern is repeated as often as the histogram of lengths allows, and
    then the next pattern is made of the windows that are left.

    Args:
        windows: the windows, each of at most `capacity` impressions.
        capacity: N, impressions of a row.
        rng: decides which of the windows of equal length goes where.

    Returns:
        The rows; every window is in exactly one of them.
    """
    order, bounds = _row_order(windows.length, capacity, rng)
    start = _gathered(windows.start, order)
    context, length = windows.context, windows.length
    del windows  # frees `windows.start`, the largest array
    target = _gathered(context, order)
    target += start
    stop = _gathered(length, order)
    stop += start
    return PackingPlan(capacity=capacity, start=start, target=target, stop=stop, bounds=bounds)


def _row_order(
    length: np.ndarray, capacity: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the windows in row order, and the bounds of the rows.

    Args:
        length: [windows], lengths of the windows.
        capacity, rng: see `pack_windows`.
    """
    # Windows sorted by length, in random order within a length: the windows of a length are a
    # slice, of which `taken` is the first unused index and `left` the number of unused windows.
    left = np.bincount(length, minlength=capacity + 1)
    taken = np.cumsum(left) - left
    by_length = _sorted_by_length(_permutation(rng, len(length)), length, taken)
    order = np.empty_like(by_length)
    patterns: list[tuple[int, int]] = []  # rows, and windows of each of them
    placed = 0
    while left.any():
        pattern = _greedy_pattern(left, capacity)
        lengths, multiple = np.unique(pattern, return_counts=True)
        # The scarcest length limits the repetitions; afterwards at least one length is used up.
        repeats = int((left[lengths] // multiple).min())
        # Rows of the pattern as a matrix [repeats, windows of a row], filled length by length.
        rows = order[placed : placed + repeats * len(pattern)].reshape(repeats, len(pattern))
        column = 0
        for size, times in zip(lengths[::-1], multiple[::-1]):
            n = repeats * times
            rows[:, column : column + times] = by_length[taken[size] : taken[size] + n].reshape(
                repeats, times
            )
            column += times
            taken[size] += n
            left[size] -= n
        patterns.append(rows.shape)
        placed += rows.size
    return order, _bounds(patterns)


def _sorted_by_length(order: np.ndarray, length: np.ndarray, begin: np.ndarray) -> np.ndarray:
    """Return windows sorted by length, a stable sort in parts that needs little memory.

    Args:
        order: [windows], numbers of windows.
        length: [windows], their lengths by number.
        begin: int64 [capacity + 1], number of shorter windows, by length.
    """
    by_length = np.empty_like(order)
    begin = begin.copy()
    for part in _parts(len(order)):
        window = order[part]
        of_window = length[window]
        count = np.bincount(of_window, minlength=len(begin))
        index = np.repeat(begin - (np.cumsum(count) - count), count)
        index += np.arange(len(window))
        by_length[index] = window[np.argsort(of_window, kind="stable")]
        begin += count
    return by_length


def _gathered(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return `values[index]` as int64; in parts, because NumPy widens the index."""
    out = np.empty(len(index), np.int64)
    for part in _parts(len(index)):
        out[part] = values[index[part]]
    return out


def _parts(n: int) -> Iterator[slice]:
    """Yield slices that cover 0..n."""
    return (slice(first, min(n, first + _AT_A_TIME)) for first in range(0, n, _AT_A_TIME))


def _bounds(patterns: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the bounds of the rows of patterns, given as (rows, windows of a row)."""
    bounds = np.zeros(1 + sum(rows for rows, _ in patterns), np.int64)
    row = window = 0
    for rows, windows in patterns:
        bounds[row + 1 : row + rows + 1] = window + windows * np.arange(1, rows + 1)
        row += rows
        window += rows * windows
    return bounds


def make_packing_plan(
    records: Records,
    split: str,
    capacity: int,
    context: float = 0.5,
    fraction: float = 1.0,
    seed: int = 0,
) -> PackingPlan:
    """Cut a split into windows and pack the windows into rows.

    Args:
        records: prepared data.
        split: name of the split.
        capacity: N, impressions of a row.
        context: share of a row reserved for earlier history, in [0, 1).
        fraction: share of the members to take, in (0, 1]. The members of a smaller fraction are a
            subset of those of a larger fraction.
        seed: decides the order of windows of equal length.

    Returns:
        The plan; it is empty if no member has an impression in the split.
    """
    rng = np.random.default_rng([seed, capacity])
    # One permutation for all fractions makes them nested.
    members = len(records.member_ids)
    keep = _permutation(np.random.default_rng(0), members) < fraction * members
    return pack_windows(cut_windows(records, split, capacity, context, keep), capacity, rng)


def _permutation(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return `rng.permutation(n)`, in half of the memory if n is below 2^31."""
    return rng.permutation(np.arange(n, dtype=np.int32 if n < 2**31 else np.int64))


def _greedy_pattern(left: np.ndarray, capacity: int) -> list[int]:
    """Return the window lengths of one row, given the number of unused windows of each length."""
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
