"""Laws of the packing plan: targets, their history, and their positions."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ligr_jax.data.manifest import SPLITS
from ligr_jax.data.packing import cut_windows, make_packing_plan
from ligr_jax.data.packing_plan import PackingPlan

CONTEXT = 0.5


def histories(
    seed: int, members: int = 80, longest: int = 60, trains_on_context: bool = False
) -> Any:
    """Return records of random lengths; sessions have 1 to 12 impressions, and splits cut them."""
    rng = np.random.default_rng(seed)
    length = rng.integers(1, longest, members)
    cuts = np.sort(rng.integers(0, length + 1, (3, members)), axis=0)
    counts = np.diff(np.vstack([np.zeros((1, members), int), cuts, length]), axis=0).T
    session = np.concatenate([np.repeat(np.arange(n), rng.integers(1, 12, n))[:n] for n in length])
    offsets = np.concatenate([[0], np.cumsum(length)])
    change = np.flatnonzero(np.diff(session) != 0) + 1
    ends = np.unique(np.concatenate([change, offsets]))
    return SimpleNamespace(
        offsets=offsets,
        counts=counts.astype(np.int32),
        member_ids=np.arange(members),
        manifest=SimpleNamespace(splits=SPLITS, trains_on_context=trains_on_context),
        session=session,
        session_ends=lambda: ends,
    )


def targets_of(records: Any, split: str) -> np.ndarray:
    """Return all impression numbers of a split."""
    before = 1 + SPLITS.index(split)
    first = records.offsets[:-1] + records.counts[:, :before].sum(1)
    return np.concatenate([f + np.arange(n) for f, n in zip(first, records.counts[:, before])])


def row_windows(plan: PackingPlan) -> list[list[tuple[int, int, int]]]:
    slices = list(zip(plan.start.tolist(), plan.target.tolist(), plan.stop.tolist()))
    return [slices[a:b] for a, b in zip(plan.bounds[:-1], plan.bounds[1:])]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("capacity", [2, 7, 16, 200])
def test_every_impression_of_a_split_is_a_target_exactly_once(split: str, capacity: int) -> None:
    for seed in range(5):
        records = histories(seed)
        plan = make_packing_plan(records, split, capacity, CONTEXT, seed=seed)
        index, _, is_target = plan.gather(np.arange(len(plan)))
        np.testing.assert_array_equal(np.sort(index[is_target]), targets_of(records, split))
        assert plan.targets == is_target.sum()
        assert plan.impressions == (index >= 0).sum()
        assert plan.packing == pytest.approx((index >= 0).mean())


@pytest.mark.parametrize("capacity", [2, 7, 16, 200])
def test_context_rows_are_targets_of_the_train_split_exactly_once(capacity: int) -> None:
    records = histories(4, trains_on_context=True)
    untimed = np.concatenate(
        [f + np.arange(n) for f, n in zip(records.offsets, records.counts[:, 0])]
    )
    for split in SPLITS:
        wanted = targets_of(records, split)
        if split == "train":
            wanted = np.sort(np.concatenate([untimed, wanted]))
        plan = make_packing_plan(records, split, capacity, CONTEXT)
        index, _, is_target = plan.gather(np.arange(len(plan)))
        np.testing.assert_array_equal(np.sort(index[is_target]), wanted)


@pytest.mark.parametrize("context", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("capacity", [2, 7, 16, 200])
def test_a_window_is_the_latest_history_of_one_member_up_to_its_last_target(
    capacity: int, context: float
) -> None:
    records = histories(1)
    cut = cut_windows(records, "validation", capacity, context, np.ones(80, bool))
    member = np.searchsorted(records.offsets, cut.start, side="right") - 1
    np.testing.assert_array_equal(
        member, np.searchsorted(records.offsets, cut.stop - 1, side="right") - 1
    )
    # The window has all history of the member that fits.
    start = np.maximum(records.offsets[member], cut.stop - capacity)
    np.testing.assert_array_equal(cut.start, start)
    assert (cut.target < cut.stop).all()
    assert (cut.target >= cut.start).all()


@pytest.mark.parametrize("capacity", [2, 7, 16, 200])
def test_windows_end_where_sessions_end_unless_one_is_longer_than_a_row(capacity: int) -> None:
    for seed in range(5):
        records = histories(seed)
        cut = cut_windows(records, "train", capacity, CONTEXT, np.ones(80, bool))
        ends = set(records.session_ends().tolist())
        split_ends = set((records.offsets[:-1] + records.counts[:, :2].sum(1)).tolist())
        for target, stop in zip(cut.target.tolist(), cut.stop.tolist()):
            if stop not in ends | split_ends:
                rest = records.session[target:stop]
                assert (rest == rest[0]).all()
                assert stop - target == capacity


def test_long_histories_have_the_configured_share_of_context() -> None:
    """All windows except the first of a member have at least half context."""
    records = histories(2, longest=300)
    capacity = 40
    cut = cut_windows(records, "train", capacity, CONTEXT, np.ones(80, bool))
    first = np.isin(cut.start, records.offsets)
    assert (~first).sum() > 50
    assert ((cut.target - cut.start)[~first] >= capacity * CONTEXT).all()


def test_rows_contain_their_windows_in_order() -> None:
    plan = make_packing_plan(histories(3), "train", 16, CONTEXT)
    index, window, is_target = plan.gather(np.arange(len(plan)))
    for r, slices in enumerate(row_windows(plan)):
        flat = [
            (i, w, i >= target)
            for w, (start, target, stop) in enumerate(slices, 1)
            for i in range(start, stop)
        ]
        flat += [(-1, 0, False)] * (16 - len(flat))
        assert list(zip(index[r], window[r], is_target[r])) == flat


def test_a_row_is_a_function_of_its_number_alone() -> None:
    plan = make_packing_plan(histories(4), "train", 16, CONTEXT)
    whole = plan.gather(np.arange(len(plan)))
    some = np.array([5, -1, 0, len(plan) - 1, 5])
    for part, all_rows, padding in zip(plan.gather(some), whole, (-1, 0, False)):
        np.testing.assert_array_equal(part[some >= 0], all_rows[some[some >= 0]])
        assert (part[1] == padding).all()


@pytest.mark.parametrize(("longest", "capacity"), [(20, 64), (60, 256), (5, 32)])
def test_rows_are_full_where_several_members_fit(longest: int, capacity: int) -> None:
    plan = make_packing_plan(
        histories(5, members=2000, longest=longest), "train", capacity, CONTEXT
    )
    assert plan.packing >= 0.95


def test_a_plan_depends_on_its_seed() -> None:
    records = histories(6)
    a, same, other = (make_packing_plan(records, "train", 16, CONTEXT, seed=s) for s in (1, 1, 2))
    assert row_windows(a) == row_windows(same)
    assert row_windows(a) != row_windows(other)
    one, another = (sorted(w for row in row_windows(p) for w in row) for p in (a, other))
    assert one == another


def test_a_smaller_fraction_of_members_is_a_subset_of_a_larger_one() -> None:
    records = histories(7, members=200)

    def members(fraction: float, seed: int) -> set[int]:
        plan = make_packing_plan(records, "train", 16, CONTEXT, fraction, seed)
        return set(np.searchsorted(records.offsets, plan.start, side="right").tolist())

    whole = members(1.0, 0)
    tenth, half = members(0.1, 1), members(0.5, 2)
    assert tenth < half < whole
    assert abs(len(half) - len(whole) / 2) < 15
    assert half == members(0.5, 3)


def test_members_of_one_impression_share_rows() -> None:
    records = histories(8, members=20, longest=2)
    records.counts[:] = [0, 1, 0, 0]
    plan = make_packing_plan(records, "train", 8, CONTEXT)
    assert len(plan) == 3
    assert plan.targets == 20


def test_a_split_without_members_gives_an_empty_plan() -> None:
    records = histories(9)
    records.counts[:, 2] = 0
    plan = make_packing_plan(records, "validation", 8, CONTEXT)
    assert len(plan) == plan.targets == plan.impressions == 0
    assert plan.packing == 0
    assert plan.gather(np.array([-1, -1]))[0].tolist() == [[-1] * 8] * 2
