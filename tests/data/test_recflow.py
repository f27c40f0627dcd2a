"""RecFlow: shown videos become rows, candidates do not, and the units of a file are checked."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ligr_jax.data.manifest import MISSING
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.formats import open_source
from tests.data.logs import read_rows

SAMPLE = Path(__file__).parents[2].parent / "shared" / "data" / "samples" / "recflow"
needs_sample = pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"no sample of RecFlow in {SAMPLE}")

DAY = "2024-02-17.feather"
NOON_MS = 1_708_142_400_000  # 2024-02-17 12:00 in UTC+8
UPLOADED_S = NOON_MS // 1000 - 3 * 86_400
FLAGS = ("rerank_pos", "rerank_neg", "rank_pos", "rank_neg", "coarse_neg", "prerank_neg")
# realshow, request_timestamp, user_id, video_id, duration, playing_time, effective_view, like, age
ROWS = [
    (1, NOON_MS, 7, 1, 10_000, 9_000, 1, 0, 3),
    (1, NOON_MS, 7, 2, 0, 500, 0, 0, 3),
    (0, NOON_MS, 7, 3, 10_000, 8_000, 1, 1, 3),  # a candidate
    (1, NOON_MS, 7, 2, 0, 500, 0, 0, 3),  # the second row again
    (1, NOON_MS + 40 * 60_000, 7, 1, 10_000, -1, 0, 0, -1),
    (1, NOON_MS + 40 * 60_000, 7, 1, 10_000, 8_000, 1, 0, -1),  # the same impression, updated
    (1, NOON_MS + 86_400_000, 8, 1, 10_000, 12_000, 1, 1, 0),
]


def log() -> pl.DataFrame:
    names = ("realshow", "request_timestamp", "user_id", "video_id", "duration", "playing_time")
    frame = pl.DataFrame(ROWS, schema=[*names, "effective_view", "like", "age"], orient="row")
    ones = ("request_id", "device_id", "gender", "province", *FLAGS, "rank_index", "rerank_index")
    videos = ("category_level_one", "category_level_two", "upload_type")
    return frame.with_columns(
        *(pl.lit(1).alias(name) for name in (*ones, *videos)),
        *(pl.lit(0).alias(name) for name in ("long_view", "follow", "forward", "comment")),
        author_id=100 + pl.col("video_id"),
        upload_timestamp=pl.lit(UPLOADED_S, pl.Int64),
    )


def write_layout(directory: Path, rows: pl.DataFrame | None = None) -> None:
    rows = log() if rows is None else rows
    (directory / "realshow").mkdir(parents=True)
    rows.head(6).write_ipc(directory / "realshow" / DAY)
    rows.tail(1).write_ipc(directory / "realshow" / "2024-02-18.feather", compression="lz4")


def test_only_shown_videos_are_impressions(tmp_path: Path) -> None:
    write_layout(tmp_path / "data")
    (tmp_path / "data" / "realshow" / "user_map.pkl").write_bytes(b"never read")
    source = open_source(tmp_path / "data")
    assert source.name == "RecFlow"
    manifest = prepare(source, tmp_path / "out", PrepareOptions(fractions=(1, 0, 0)))
    assert (manifest.counts["duplicates"], manifest.counts["superseded"]) == (1, 1)
    first, second = read_rows(tmp_path / "out" / manifest.shards[0].file)
    assert first["item_id"] == [1, 2, 1]
    assert first["actor_id"] == [101, 102, 101]
    assert first["session"] == [0, 0, 1]
    assert first["effective_view"] == [1, 0, 1]
    assert first["hour"] == [12, 12, 12]
    assert first["age"] == [3, 3, MISSING]
    np.testing.assert_equal(first["duration_ms"], [10_000, np.nan, 10_000])
    assert first["play_time_ms"] == [9_000, 500, 8_000]
    np.testing.assert_allclose(first["video_age_days"], [3, 3, 3 + 40 / 1440], 1e-6)
    assert (second["like"], second["age"]) == ([1], [0])
    assert manifest.columns["play_time_ms"].outcome
    assert "rank_index" not in manifest.columns


def test_all_stages_give_the_same_impressions(tmp_path: Path) -> None:
    write_layout(tmp_path / "a")
    write_layout(tmp_path / "b")
    (tmp_path / "b" / "realshow").rename(tmp_path / "b" / "all_stage")
    made = [
        prepare(
            open_source(tmp_path / d), tmp_path / f"{d}-out", PrepareOptions(fractions=(1, 0, 0))
        )
        for d in ("a", "b")
    ]
    assert made[0].shards == made[1].shards


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            pl.col("request_timestamp") // 1000,
            f"{DAY}, column 'request_timestamp'.*values are seconds: convert the column to milli",
        ),
        (
            pl.col("upload_timestamp") * 1000,
            f"{DAY}, column 'upload_timestamp'.*values are milliseconds: convert the column to sec",
        ),
        (pl.col("playing_time") // 1000, r"'playing_time' and 'duration': .* is below 0.03"),
        (pl.col("duration") // 1000, r"'playing_time' and 'duration': .* is above 30"),
        (
            pl.col("request_timestamp") - 365 * 86_400_000,
            "before the period of RecFlow, 2024-01-13 to 2024-02-18.*another data set",
        ),
        (pl.col("realshow").replace(0, 2), r"row 3, column 'realshow': value 2 is not 0 or 1"),
        (
            pl.col("like").cast(pl.String),
            r"column 'like' has the type string\w*, and RecFlow has integer values",
        ),
    ],
)
def test_other_units_and_types_are_refused(tmp_path: Path, change: pl.Expr, message: str) -> None:
    write_layout(tmp_path, log().with_columns(change))
    with pytest.raises(BadInput, match=message):
        prepare(open_source(tmp_path, "recflow"), tmp_path / "out")


def test_missing_files_and_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"lacks realshow/2024-01-13\.feather"):
        open_source(tmp_path, "recflow")
    write_layout(tmp_path, log().drop("realshow"))
    with pytest.raises(BadInput, match=rf"{DAY} lacks the columns \['realshow'\] of RecFlow"):
        open_source(tmp_path)


@needs_sample
def test_sample_equals_direct_counts(tmp_path: Path) -> None:
    manifest = prepare(open_source(SAMPLE), tmp_path, PrepareOptions(batch_rows=50))
    days = [pl.read_ipc(p) for p in sorted((SAMPLE / "all_stage").iterdir())]
    shown = pl.concat(days).filter(pl.col("realshow") == 1)
    assert manifest.counts["impressions"] == shown.height
    assert manifest.counts["members"] == shown["user_id"].n_unique()
    for ours, theirs in (("effective_view", "effective_view"), ("long_dwell", "long_view")):
        total = sum(s.impressions * s.positive_rate[ours] for s in manifest.splits.values())
        assert round(total) == shown[theirs].sum()
    assert manifest.columns["item_id"].distinct == shown["video_id"].n_unique()
