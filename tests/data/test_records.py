"""Laws of random access to prepared data."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from ligr_jax.data.packing import make_packing_plan
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.prepare.splits import SplitTimes
from ligr_jax.data.records import Records
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.canonical import canonical_source
from tests.data.logs import write_log


@pytest.fixture(scope="module")
def records(prepared: Path) -> Records:
    opened = Records(prepared)
    assert len(opened.manifest.shards) > 1
    return opened


@pytest.fixture(scope="module")
def log(prepared: Path, records: Records) -> pl.DataFrame:
    """Return the rows of the log in the order of impression numbers, with their splits."""
    rows = pl.read_parquet(prepared.parent / "log" / "impressions-*.parquet")
    place = pl.DataFrame({"member_id": records.member_ids, "m": np.arange(len(records.member_ids))})
    edges = [s.end_ms for s in records.manifest.splits.values()][:-1]
    rows = rows.join(place, on="member_id", maintain_order="left")
    rows = rows.sort("m", "timestamp_ms", maintain_order=True)
    split = np.searchsorted(edges, rows["timestamp_ms"].to_numpy(), side="right")
    return rows.with_columns(split=pl.Series(split))


def test_every_column_equals_the_log_in_order(records: Records, log: pl.DataFrame) -> None:
    assert len(records) == len(log)
    time = records.column("timestamp_ms")
    np.testing.assert_array_equal(time, log["timestamp_ms"].to_numpy())
    np.testing.assert_array_equal(records.feature("item_id"), log["item_id"].to_numpy())
    for action in ("click", "like"):
        np.testing.assert_array_equal(records.label(action), log[action].to_numpy())
    np.testing.assert_array_equal(
        records.feature("age_days"), log["age_days"].to_numpy().astype(np.float32)
    )
    sizes = log.group_by("m").len().sort("m")["len"].to_numpy()
    np.testing.assert_array_equal(np.diff(records.offsets), sizes)
    for k in range(3):
        here = log.group_by("m").agg((pl.col("split") == k).sum()).sort("m")["split"].to_numpy()
        np.testing.assert_array_equal(records.counts[:, 1 + k], here)


def test_take_reads_across_shards_in_any_shape_and_order(
    records: Records, log: pl.DataFrame, prepared: Path
) -> None:
    index = np.random.default_rng(0).integers(0, len(records), (17, 5))
    np.testing.assert_array_equal(
        records.feature("item_id", index), log["item_id"].to_numpy()[index]
    )
    items = pl.read_parquet(prepared.parent / "log" / "items.parquet")
    vectors = np.array(items.sort("item_id")["content"].to_list(), np.float32)
    taken = records.feature("content", index)
    np.testing.assert_array_equal(taken, vectors[log["item_id"].to_numpy()[index]])
    empty = np.zeros((0, 5), np.int64)
    assert records.feature("item_id", empty).shape == (0, 5)
    assert records.feature("content", empty).shape == (0, 5, 4)


def test_train_counts_equal_the_log(records: Records, log: pl.DataFrame) -> None:
    wanted = dict(log.filter(split=0).group_by("item_id").len().iter_rows())
    values = np.array([[0, 3, 10**9], [29, -5, 3]])
    counts = records.train_counts("item_id", values)
    np.testing.assert_array_equal(counts, [[wanted.get(v, 0) for v in row] for row in values])
    assert records.train_counts("item_id", np.arange(30)).sum() == (log["split"] == 0).sum()
    assert records.train_counts("item_id", np.zeros((0, 2), np.int64)).shape == (0, 2)


def test_a_loader_process_opens_the_files_itself(records: Records) -> None:
    sent = pickle.dumps(records)
    assert len(sent) < 1000
    opened = pickle.loads(sent)
    np.testing.assert_array_equal(opened.label("click"), records.label("click"))


def test_data_replaced_while_they_are_read_are_noticed_or_not_seen(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader never has shards of two data sets: neither in one process nor in its workers."""
    source, out = tmp_path / "log", tmp_path / "out"

    def prepare_again(seed: int) -> None:
        write_log(source, rows=400, members=20, seed=seed)
        prepare(canonical_source(source), out, PrepareOptions(shard_rows=100, overwrite=True))

    prepare_again(0)
    reader = Records(out)
    before, sent = reader.column("timestamp_ms").copy(), pickle.dumps(reader)
    prepare_again(1)
    np.testing.assert_array_equal(reader.column("timestamp_ms"), before)
    for opened in (lambda: pickle.loads(sent), lambda: Records(out, digest=reader.digest)):
        with pytest.raises(BadInput, match=f"but {reader.digest} is expected"):
            opened()
    open_file, opened = Records._open, list[str]()

    def replaced_after_the_first_file(self: Records, file: str) -> pa.RecordBatch:
        batch = open_file(self, file)
        opened.append(file)
        if len(opened) == 1:
            prepare_again(2)
        return batch

    monkeypatch.setattr(Records, "_open", replaced_after_the_first_file)
    with pytest.raises(BadInput, match="was prepared again while it was being opened"):
        Records(out)


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.999])
@pytest.mark.parametrize("pattern", ["members-00000-*.arrow", "items.arrow"])
def test_a_truncated_file_is_a_clear_error(
    prepared: Path, tmp_path: Path, keep: float, pattern: str
) -> None:
    shutil.copytree(prepared, tmp_path / "copy")
    (path,) = (tmp_path / "copy").glob(pattern)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep if keep > 1 else keep * len(data))])
    with pytest.raises(BadInput, match=rf"{path.name}: cannot be read .*prepare the data again"):
        Records(tmp_path / "copy")


def test_a_missing_file_is_a_clear_error(prepared: Path, tmp_path: Path) -> None:
    shutil.copytree(prepared, tmp_path / "copy")
    next((tmp_path / "copy").glob("members-00001-*.arrow")).unlink()
    with pytest.raises(BadInput, match=r"members-00001.*cannot be read"):
        Records(tmp_path / "copy")
    with pytest.raises(BadInput, match=r"holds no manifest.json.*ligr prepare"):
        Records(tmp_path)


def test_other_edges_split_as_preparing_with_them(
    records: Records, prepared: Path, tmp_path: Path
) -> None:
    first, end = records.manifest.splits["train"].start_ms, records.manifest.splits["test"].end_ms
    cuts = [first + k * (end - first) // 5 for k in (2, 3)]
    options = PrepareOptions(shard_rows=1000, splits=SplitTimes(*cuts))
    prepare(canonical_source(prepared.parent / "log"), tmp_path / "cut", options)
    other, found = Records(tmp_path / "cut"), Records(prepared, (first, *cuts, end))
    np.testing.assert_array_equal(found.counts, other.counts)
    assert found.manifest.splits == other.manifest.splits
    assert found.manifest.columns == records.manifest.columns
    assert found.digest == records.digest


def test_training_on_a_time_window_has_all_earlier_impressions_as_history(
    records: Records, prepared: Path
) -> None:
    first, end = records.manifest.splits["train"].start_ms, records.manifest.splits["test"].end_ms
    edges = tuple(first + k * (end - first) // 5 for k in (1, 2, 3, 3))
    day = pickle.loads(pickle.dumps(Records(prepared, edges)))
    time = day.column("timestamp_ms")
    plan = make_packing_plan(day, "train", capacity=32)
    index, _, target = plan.gather(np.arange(len(plan)))
    expected = np.flatnonzero((time >= edges[0]) & (time < edges[1]))
    np.testing.assert_array_equal(np.sort(index[target]), expected)
    assert (time[index[(index >= 0) & ~target]] < edges[1]).all()
    assert (time[index[index >= 0]] < edges[0]).any()
    assert len(make_packing_plan(day, "test", capacity=32)) == 0
    items = day.feature("item_id")
    np.testing.assert_array_equal(
        day.train_counts("item_id", np.arange(30)), np.bincount(items[expected], minlength=30)
    )
