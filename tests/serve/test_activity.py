"""Laws of the activity store: its histories are those of the data pipeline, to the bit."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ligr_jax.data.assemble import Assembler
from ligr_jax.data.records import Records
from ligr_jax.data.schema import UNKNOWN, BadInput
from ligr_jax.serve import ActivityStore, Appended, build_store
from tests.data.logs import DAY_MS, START_MS
from tests.serve.stores import (
    assert_same_batch,
    histories,
    model_of,
    pipeline_batch,
    pipeline_plan,
    prepared_log,
    rows_to_append,
    write_rich_log,
)

MEMBERS = list(range(7))
UNKNOWN_MEMBER = 10**9


@pytest.fixture(scope="module", params=[False, True], ids=["gaps", "session_ids"])
def rich(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a log of all kinds of columns, its prepared data, and a whole store."""
    directory = tmp_path_factory.mktemp("rich")
    log = write_rich_log(directory / "log", sessions=request.param)
    log.write_parquet(directory / "rows.parquet")
    prepared_log(directory / "log", directory / "prepared")
    build_store(directory / "prepared", directory / "whole")
    return directory


@pytest.fixture
def rows(rich: Path) -> pl.DataFrame:
    """The rows of the log, as a service appends them."""
    return rows_to_append(rich / "log", pl.read_parquet(rich / "rows.parquet"))


@pytest.fixture
def whole(rich: Path) -> Iterator[ActivityStore]:
    """The store of all rows."""
    with ActivityStore(rich / "whole") as store:
        yield store


def test_batches_equal_those_of_the_pipeline(prepared: Path, tmp_path: Path) -> None:
    records = Records(prepared)
    build_store(prepared, tmp_path / "store")
    rng = np.random.default_rng(0)
    ids = records.member_ids.tolist()
    with ActivityStore(tmp_path / "store", data_digest=records.digest) as store:
        assert store.size() == (len(ids), len(records))
        model = model_of(store.manifest)
        for newest in (1, 3, 17, 64):
            members = [*rng.choice(ids, 6).tolist(), UNKNOWN_MEMBER]
            for capacity in (newest, newest + 5):
                made = store.batch(members, model, newest, capacity)
                assert_same_batch(made, pipeline_batch(records, members, newest, capacity))


def test_batches_of_all_kinds_of_columns_equal_those_of_the_pipeline(
    rich: Path, whole: ActivityStore
) -> None:
    records = Records(rich / "prepared")
    model = model_of(records.manifest)
    for newest in (1, 127, 128, 129, 300):
        made = whole.batch(MEMBERS, model, newest)
        assert_same_batch(made, pipeline_batch(records, MEMBERS, newest, newest))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_store_until_a_split_has_the_histories_of_that_time(
    rich: Path, tmp_path: Path, split: str
) -> None:
    records = Records(rich / "prepared")
    until_ms = records.manifest.splits[split].end_ms
    build_store(rich / "prepared", tmp_path / "store", until_ms)
    with ActivityStore(tmp_path / "store") as store:
        made = store.batch(MEMBERS, model_of(records.manifest), 200)
        assert_same_batch(made, pipeline_batch(records, MEMBERS, 200, 200, until_ms))


def test_built_and_appended_is_built_from_the_longer_log(
    rich: Path, tmp_path: Path, rows: pl.DataFrame, whole: ActivityStore
) -> None:
    edge_ms = START_MS // DAY_MS * DAY_MS + 6 * DAY_MS  # no session by ids spans midnight
    build_store(rich / "prepared", tmp_path / "store", edge_ms)
    later = rows.filter(pl.col("timestamp_ms") >= edge_ms)
    assert 100 < len(later) < len(rows)
    with ActivityStore(tmp_path / "store") as store:
        assert store.append(later) == Appended(len(later), 0, 0)
        assert histories(store, MEMBERS) == histories(whole, MEMBERS)


@pytest.mark.parametrize("cuts", ["two", "many", "shuffled"])
def test_appended_in_any_cuts_is_built(
    rich: Path, tmp_path: Path, rows: pl.DataFrame, whole: ActivityStore, cuts: str
) -> None:
    rng = np.random.default_rng(1)
    build_store(rich / "prepared", tmp_path / "store", until_ms=0)
    if cuts == "shuffled":  # impressions that arrive late; those of one time keep their order
        times = pl.DataFrame({"timestamp_ms": rng.permutation(rows["timestamp_ms"].unique())})
        rows = times.join(rows, on="timestamp_ms", how="left", maintain_order="left_right")
    edges = np.sort(rng.integers(0, len(rows), 1 if cuts == "two" else 40)).tolist()
    with ActivityStore(tmp_path / "store") as store:
        assert store.size() == (0, 0)
        for low, high in zip([0, *edges], [*edges, len(rows)]):
            part = rows[low:high]
            assert store.append(part if low % 2 else part.to_dicts()).added == len(part)
            assert store.append(part) == Appended(0, len(part), 0)  # a retry changes nothing
        assert store.size() == whole.size()
        assert histories(store, MEMBERS) == histories(whole, MEMBERS)


def test_windows_equal_those_of_the_pipeline_with_unknown_actions(
    rich: Path, tmp_path: Path, rows: pl.DataFrame
) -> None:
    records = Records(rich / "prepared")
    model = model_of(records.manifest)
    edge_ms = START_MS // DAY_MS * DAY_MS + 6 * DAY_MS
    build_store(rich / "prepared", tmp_path / "store", edge_ms)
    # The candidates of a request are the next session of the member.
    plan = pipeline_plan(records, MEMBERS, 10**6, 200, edge_ms)
    ends = records.session_ends()
    stop = ends[np.searchsorted(ends, plan.stop, side="right")]
    start = np.maximum(plan.start, plan.stop - 60)
    times = [records.take("timestamp_ms", np.array([a, b - 1])) for a, b in zip(plan.stop, stop)]
    shown = [
        rows.filter(
            (pl.col("member_id") == m) & pl.col("timestamp_ms").is_between(*time.tolist())
        ).sort("timestamp_ms", maintain_order=True)
        for m, time in zip(MEMBERS, times)
    ]
    assert [len(frame) for frame in shown] == (stop - plan.stop).tolist()
    expected = Assembler(records, replace(plan, start=start, target=plan.stop, stop=stop), model)(
        np.arange(len(MEMBERS))
    )
    for row, (history, length) in enumerate(zip(plan.stop - start, stop - start)):
        expected.labels[row, history:length] = UNKNOWN
        expected.ids["dwell_s"][row, history:length] = 0
    with ActivityStore(tmp_path / "store") as store:
        without = ["member_id", "session_id", "click", "like", "dwell_s", "actor_id"]
        requests = [frame.drop(without[:-1], strict=False).to_dicts() for frame in shown]
        assert_same_batch(store.windows(MEMBERS, requests, model, 60, 200), expected)
        # A member without history, and a request without candidates.
        made = store.windows([UNKNOWN_MEMBER, 0], [requests[1], []], model, 5)
        assert (made.member > 0).sum(1).tolist() == [len(requests[1]), 5]
        assert set(made.session[0].tolist()) == {0}
        with pytest.raises(BadInput, match="no column 'actor_id'"):
            store.windows([0], [shown[0].drop(without, strict=False)], model, 5)
        with pytest.raises(
            BadInput, match=r"newest=9 and \d+ candidates do not fit into capacity=9"
        ):
            store.windows([0], requests[:1], model, 9, 9)


def test_compaction_keeps_the_newest_and_reads_are_equal(
    rich: Path, tmp_path: Path, rows: pl.DataFrame, whole: ActivityStore
) -> None:
    build_store(rich / "prepared", tmp_path / "store")
    build_store(rich / "prepared", tmp_path / "short", newest=100)
    path = tmp_path / "store" / "activity.sqlite"
    size = path.stat().st_size
    with ActivityStore(tmp_path / "store") as store, ActivityStore(tmp_path / "short") as short:
        assert len(whole.read(0, 10**6)) > 150
        for newest in (140, 128, 100):  # within a chunk, at its end, and in the next one
            store.compact(newest=newest)
            assert store.size() == (7, 7 * newest)
            assert histories(store, MEMBERS) == histories(whole, MEMBERS, newest)
        assert histories(short, MEMBERS) == histories(store, MEMBERS)
        # A retry of what was dropped, and of what is kept, changes nothing.
        for each in (store, short):
            assert each.append(rows) == Appended(0, 700, len(rows) - 700)
            assert histories(each, MEMBERS) == histories(whole, MEMBERS, 100)
        # By time; then the file is small, and a member without impressions is unknown.
        last = whole.read(3, 1).records["timestamp_ms"][0]
        store.compact(before_ms=int(last))
        for member in MEMBERS:
            times = whole.read(member, 100).records["timestamp_ms"]
            assert len(store.read(member, 10**6)) == (times >= last).sum()
        assert store.compact(before_ms=2**62) > 0
        assert store.size() == (0, 0)
        assert path.stat().st_size < size / 3
        with pytest.raises(BadInput, match="newest=0, before_ms=None: give a positive number"):
            store.compact(newest=0)


def test_a_store_of_the_newest_continues_like_a_whole_one(
    rich: Path, tmp_path: Path, rows: pl.DataFrame, whole: ActivityStore
) -> None:
    edge_ms = START_MS // DAY_MS * DAY_MS + 6 * DAY_MS
    build_store(rich / "prepared", tmp_path / "store", edge_ms, newest=40)
    with ActivityStore(tmp_path / "store") as store:
        store.append(rows.filter(pl.col("timestamp_ms") >= edge_ms))
        model = model_of(store.manifest)
        assert_same_batch(store.batch(MEMBERS, model, 60), whole.batch(MEMBERS, model, 60))


def test_invalid_rows_have_the_messages_of_prepare_and_change_nothing(
    rich: Path, tmp_path: Path, rows: pl.DataFrame
) -> None:
    build_store(rich / "prepared", tmp_path / "store", until_ms=0)
    good = rows[:2].to_dicts()
    with ActivityStore(tmp_path / "store") as store:
        by_id = store.about.sessions == "session_id"
        for name, value, message in (
            ("timestamp_ms", 2**60, f"column 'timestamp_ms': value {2**60} is in the future"),
            ("place", [1.0], "column 'place': value [1.0] is not a vector of length 2; correct it"),
            ("item_id", None, "column 'item_id': value None is not an id; correct it"),
            *([("session_id", None, "'session_id': value None is not an id")] if by_id else []),
        ):
            with pytest.raises(BadInput, match=re.escape(message)) as error:
                store.append([good[0], {**good[1], name: value}])
            assert str(error.value).startswith("frame, row 1, ")
            assert "--on-bad-row" not in str(error.value)
        with pytest.raises(
            BadInput, match=r"frame, column 'click': its values are 0 .* 2 .*; labels"
        ):
            store.append([{**good[0], "click": 0}, {**good[1], "click": 2}])
        for name in ("member_id", "surface", "like", *(["session_id"] if by_id else [])):
            with pytest.raises(BadInput, match=f"frame: no column '{name}'"):
                store.append(rows[:2].drop(name))
        with pytest.raises(BadInput, match="the dictionaries do not form a table"):
            store.append([{**good[0], "item_id": [1]}, good[1]])
        with pytest.raises(BadInput, match="newest=9 impressions do not fit into capacity=8; give"):
            store.batch([0], model_of(store.manifest), 9, 8)
        with pytest.raises(BadInput, match="newest=0: give a positive number of impressions"):
            store.read(0, 0)
        with pytest.raises(BadInput, match="members is empty"):
            store.windows([], [], model_of(store.manifest), 9)
        assert store.append([]) == Appended(0, 0, 0)
        assert store.size() == (0, 0)
