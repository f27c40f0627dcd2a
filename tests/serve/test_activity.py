"""Laws of the activity store: its histories are those of the data pipeline, to the bit."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ligr_jax.data.records import Records
from ligr_jax.serve import ActivityStore, Appended, build_store
from tests.data.logs import DAY_MS, START_MS
from tests.serve.stores import (
    assert_same_batch,
    histories,
    model_of,
    pipeline_batch,
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
