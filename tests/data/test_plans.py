"""Laws of stored plans: one process makes a plan, all map it, and it equals that of memory."""

import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ligr_jax.data import packing, plans
from ligr_jax.data.packing import make_packing_plan
from ligr_jax.data.packing_plan import PackingPlan
from ligr_jax.data.plans import plan_of, stored_plan
from ligr_jax.data.records import Records
from tests.data.test_packing import histories

SETTINGS = ("train", 24, 0.5, 0.7, 3)


def assert_equal(a: PackingPlan, b: PackingPlan) -> None:
    assert a.capacity == b.capacity
    for name in ("start", "target", "stop", "bounds"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_a_stored_plan_is_mapped_and_equals_the_plan_in_memory(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "STORED_FROM", 1)
    monkeypatch.setenv(plans.CACHE, str(tmp_path))
    records = Records(prepared)
    wanted = make_packing_plan(records, *SETTINGS)
    stored = plan_of(records, *SETTINGS)
    assert_equal(stored, wanted)
    assert stored.file is not None
    sent = pickle.dumps(stored)
    assert len(sent) < 1000
    assert_equal(pickle.loads(sent), wanted)
    assert_equal(pickle.loads(pickle.dumps(wanted)), wanted)
    monkeypatch.setattr(plans, "make_packing_plan", None)  # the second time nothing is computed
    assert_equal(plan_of(records, *SETTINGS), wanted)
    # Other settings and other edges are other plans.
    monkeypatch.undo()
    monkeypatch.setattr(plans, "STORED_FROM", 1)
    monkeypatch.setenv(plans.CACHE, str(tmp_path))
    other = plan_of(records, *SETTINGS[:-1], 4)
    assert other.file != stored.file
    # A damaged file is made again, and one of another version is not read.
    stored.file.write_bytes(stored.file.read_bytes()[:-8])
    assert_equal(plan_of(records, *SETTINGS), wanted)
    monkeypatch.setattr(plans, "_VERSION", -1)
    assert plan_of(records, *SETTINGS).file != stored.file


def test_a_directory_that_cannot_be_written_leaves_the_plan_in_memory(
    tmp_path: Path, said: list[str]
) -> None:
    (tmp_path / "file").write_text("")
    plan = make_packing_plan(histories(0), "train", 16)
    got = stored_plan(tmp_path / "file" / "plans", [], lambda: plan)
    assert got is plan
    assert any("LIGR_CACHE" in line for line in said)


def test_a_plan_that_several_ask_for_at_once_is_made_once(tmp_path: Path) -> None:
    """Locks of files also hold between the threads of a process."""
    made = []

    def make() -> PackingPlan:
        made.append(time.sleep(0.05))  # the others arrive meanwhile
        return make_packing_plan(histories(0), "train", 16)

    with ThreadPoolExecutor(4) as pool:
        stored = list(pool.map(lambda _: stored_plan(tmp_path, ["key"], make), range(4)))
    assert len(made) == 1
    for plan in stored:
        assert_equal(plan, stored[0])


def test_the_plans_that_were_not_used_for_long_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "_KEPT", 2)
    plan = make_packing_plan(histories(0), "train", 16)
    files = []
    for age, key in ((3, 0), (2, 1), (1, 2)):
        files.append(stored_plan(tmp_path, key, lambda: plan).file)
        os.utime(files[-1], (10**9 - age, 10**9 - age))
    assert [file.exists() for file in files] == [False, True, True]


def test_windows_do_not_depend_on_the_members_read_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = make_packing_plan(histories(1), "train", 7)
    monkeypatch.setattr(packing, "_AT_A_TIME", 13)
    assert_equal(make_packing_plan(histories(1), "train", 7), wanted)


def test_a_permutation_of_small_integers_is_that_of_the_generator() -> None:
    a, b = (np.random.default_rng([5, 7]) for _ in range(2))
    np.testing.assert_array_equal(packing._permutation(a, 10_007), b.permutation(10_007))
