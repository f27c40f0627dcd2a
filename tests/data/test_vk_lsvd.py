"""VK-LSVD: times are interpolated over weeks, and nothing that counts the future is read."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ligr_jax.data.manifest import MISSING
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.prepare.splits import SplitTimes
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.formats import open_source
from ligr_jax.data.sources.vk_lsvd import START_MS, WEEK_MS, vk_lsvd_marks
from tests.data.test_kuairand import columns_of

SAMPLE = Path(__file__).parents[2].parent / "shared" / "data" / "samples" / "vk_lsvd"
needs_sample = pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"no sample of VK-LSVD in {SAMPLE}")
FEEDBACK = ("like", "dislike", "share", "bookmark", "click_on_author", "open_comments")
DAY_MS = 86_400_000


def week(users: list[int], items: list[int], spent: list[int], liked: list[int]) -> pl.DataFrame:
    bytes_, ids = pl.UInt8, pl.UInt32
    frame = pl.DataFrame(
        {"user_id": users, "item_id": items}, schema={"user_id": ids, "item_id": ids}
    )
    frame = frame.with_columns(
        pl.lit(k, bytes_).alias(n) for k, n in enumerate(("place", "platform", "agent"))
    )
    flags = {name: pl.Series([False] * len(users)) for name in FEEDBACK}
    flags["like"] = pl.Series([row in liked for row in range(len(users))])
    return frame.with_columns(timespent=pl.Series(spent, dtype=bytes_), **flags)


def write_layout(root: Path, kind: str = "interactions", vectors: bool = True) -> None:
    weeks = {
        "train/week_00": week([7, 8, 7, 7], [1, 2, 3, 2], [10, 3, 255, 0], [2]),
        "train/week_01": week([8, 7], [1, 4], [9, 2], [0]),
        "validation/week_25": week([7], [9], [40], []),
    }
    for name, frame in weeks.items():
        (root / kind / name).parent.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(root / kind / f"{name}.parquet")
    (root / "metadata").mkdir(exist_ok=True)
    rank = {"train_interactions_rank": [1, 2, 3, 4]}
    items = pl.DataFrame(
        {
            "item_id": [4, 3, 2, 1],
            "author_id": [44, 33, 22, 22],
            "duration": [0, 255, 4, 10],
            **rank,
        }
    )
    items.write_parquet(root / "metadata" / "items_metadata.parquet")
    users = pl.DataFrame(
        {
            "user_id": [8, 7, 1, 2],
            "age": [30, 41, 1, 1],
            "gender": [1, 2, 0, 0],
            "geo": [5, 6, 0, 0],
            **rank,
        }
    )
    users.write_parquet(root / "metadata" / "users_metadata.parquet")
    if vectors:
        ids, values = np.array([1, 2, 4], np.uint32), np.arange(6, dtype=np.float16).reshape(3, 2)
        np.savez(root / "metadata" / "item_embeddings.npz", item_id=ids, embedding=values)


def test_published_layout(tmp_path: Path) -> None:
    write_layout(tmp_path / "in")
    source = open_source(tmp_path / "in")
    assert source.name == "VK-LSVD"
    week_25 = START_MS + 25 * WEEK_MS
    options = PrepareOptions(splits=SplitTimes(START_MS + WEEK_MS, week_25))
    manifest = prepare(source, tmp_path / "out", options)
    assert {k: s.impressions for k, s in manifest.splits.items()} == {
        "train": 4,
        "validation": 2,
        "test": 1,
    }
    rows = columns_of(tmp_path / "out", manifest)
    # Rows k = 0..n-1 of a week are at k / n of the week: week 0 has four rows, week 1 has two.
    assert rows["member_id"].tolist() == [7, 8]
    expected = [
        0,
        WEEK_MS // 2,
        3 * WEEK_MS // 4,
        3 * WEEK_MS // 2,
        25 * WEEK_MS,
        WEEK_MS // 4,
        WEEK_MS,
    ]
    assert (rows["timestamp_ms"] - START_MS).tolist() == expected
    assert START_MS % DAY_MS == 0
    assert rows["session"].tolist() == [0, 1, 2, 3, 4, 0, 1]
    assert rows["item_id"].tolist() == [1, 3, 2, 4, 9, 2, 1]
    # Durations 10, 255, 4, unknown (0), absent; 4, 10.
    assert rows["timespent"].tolist() == [10, 255, 0, 2, 40, 3, 9]
    assert rows["full_view"].tolist() == [1, 1, 0, -1, -1, 0, 0]
    assert rows["skip"].tolist() == [0, 0, 1, 1, 0, 0, 0]
    assert rows["like"].tolist() == [0, 1, 0, 0, 0, 0, 1]
    np.testing.assert_array_equal(rows["duration_s"], [10, 255, 4, np.nan, np.nan, 4, 10])
    assert rows["actor_id"].tolist() == [22, 33, 22, 44, MISSING, 22, 22]
    assert rows["user_age"].tolist() == [41, 41, 41, 41, 41, 30, 30]
    assert rows["user_geo"].tolist() == [6, 6, 6, 6, 6, 5, 5]
    assert set(rows["surface"]) == {0}
    assert manifest.columns["timespent"].outcome
    assert manifest.columns["content"].width == 2
    assert manifest.columns["content"].missing == 1 / 4  # item 3, of the rows of week 0
    assert not any("rank" in name for name in manifest.columns)
    assert any("no times" in note for note in manifest.notes)
    assert not any("most active" in note for note in manifest.notes)


def test_subsamples_chosen_by_the_future_are_noted(tmp_path: Path) -> None:
    for name in ("up0.01_ir0.1", "ur0.1"):
        write_layout(tmp_path, f"subsamples/{name}", vectors=False)
    with pytest.raises(BadInput, match=r"subsamples/up0.01_ir0.1, subsamples/ur0.1; give one of"):
        open_source(tmp_path)
    chosen = open_source(tmp_path / "subsamples" / "up0.01_ir0.1")
    assert any("most active users (up)" in note for note in chosen.schema.notes)
    assert "content" not in chosen.schema.columns
    at_random = open_source(tmp_path / "subsamples" / "ur0.1")
    assert not any("most active" in note for note in at_random.schema.notes)


def test_bad_files_are_refused(tmp_path: Path) -> None:
    assert vk_lsvd_marks(tmp_path) is None
    write_layout(tmp_path)
    # Objects in an npz are pickles, which would run code.
    path = tmp_path / "metadata" / "item_embeddings.npz"
    objects = np.array([{}], dtype=object)
    np.savez(path, item_id=np.array([1]), embedding=objects, allow_pickle=True)
    with pytest.raises(BadInput, match=r"item_embeddings.npz: not an archive .*allow_pickle=False"):
        open_source(tmp_path)
    np.savez(path, item_id=np.array([1]), embedding=np.zeros(3))
    with pytest.raises(BadInput, match=r"item_id has shape \(1,\) and embedding \(3,\)"):
        open_source(tmp_path)
    path.unlink()
    milliseconds = pl.read_parquet(tmp_path / "interactions" / "train" / "week_01.parquet")
    milliseconds = milliseconds.with_columns(pl.col("timespent").cast(pl.UInt32) * 1000)
    milliseconds.write_parquet(tmp_path / "interactions" / "train" / "week_01.parquet")
    with pytest.raises(
        BadInput,
        match=r"week_01.parquet, row 1, column 'timespent': value 9000 is not a time in seconds",
    ):
        prepare(open_source(tmp_path), tmp_path / "out")
    (tmp_path / "metadata" / "users_metadata.parquet").unlink()
    with pytest.raises(BadInput, match=r"users_metadata.parquet does not exist; download"):
        open_source(tmp_path)


@needs_sample
def test_sample_equals_direct_counts(tmp_path: Path) -> None:
    source = open_source(SAMPLE)
    manifest = prepare(source, tmp_path, PrepareOptions())
    weeks = sorted((SAMPLE / "subsamples").rglob("week_*.parquet"))
    log = pl.concat(pl.read_parquet(p) for p in weeks)
    log = log.join(
        pl.read_parquet(SAMPLE / "metadata" / "items_metadata.parquet"), "item_id", how="left"
    )
    rows = columns_of(tmp_path, manifest)
    assert manifest.counts["impressions"] == log.height
    for name in FEEDBACK:
        assert (rows[name] == 1).sum() == log[name].sum()
    known = log.filter(pl.col("duration") > 0)
    assert (rows["full_view"] >= 0).sum() == known.height
    assert (rows["full_view"] == 1).sum() == (known["timespent"] >= known["duration"]).sum()
    assert (rows["skip"] == 1).sum() == (log["timespent"] <= 2).sum()
    assert manifest.columns["content"].width == 64
    assert any("up0.001_ip0.001: the most active" in note for note in manifest.notes)
