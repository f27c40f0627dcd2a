"""KuaiRand: the public data equal independent counts, and the published CSV layout is read."""

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from ligr_jax.data.manifest import MISSING, Manifest
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.formats import open_source
from tests.data.logs import read_arrow

SLICE = Path(__file__).parents[2].parent / "shared" / "data" / "kuairand_pure"
needs_slice = pytest.mark.skipif(not SLICE.is_dir(), reason=f"no slice of KuaiRand in {SLICE}")

LOG = """\
user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,\
long_view,play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab
7,1,20220422,1600,1650614400000,1,0,0,0,0,0,1,50000,10000,0,0,0,0,1
7,2,20220422,1600,1650614400000,0,0,0,0,1,0,0,0,0,0,0,0,1,4
7,2,20220422,1600,1650614400000,0,0,0,0,1,0,0,0,0,0,0,0,1,4
7,2,20220422,1600,1650614400000,0,0,0,0,1,0,0,0,0,5,0,0,1,4
8,9,20220423,0000,1650643200000,1,1,0,0,0,1,0,900000,800000,0,0,0,0,0
"""
VIDEOS = """\
video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,server_width,\
server_height,music_id,music_type,tag
1,100,NORMAL,2022-04-20,LongImport,0,10000.0,720.0,1280.0,555,9.0,"20,43"
2,101,AD,2022-04-23,Web,0,,720.0,1280.0,556,,
"""
USERS = """\
user_id,user_active_degree,follow_user_num_range,fans_user_num_range,friend_user_num_range,\
register_days_range
7,full_active,500+,"[10,100)",0,730+
"""


def write_csv_layout(directory: Path) -> None:
    (directory / "data").mkdir(parents=True)
    for name, text in (
        ("log_standard_4_22_to_5_08_pure", LOG),
        ("video_features_basic_pure", VIDEOS),
        ("user_features_pure", USERS),
        ("video_features_statistic_pure", "video_id,counts\n1,this is never read\n"),
    ):
        (directory / "data" / f"{name}.csv").write_text(text)


def columns_of(directory: Path, manifest: Manifest) -> dict[str, np.ndarray]:
    """Return the flat columns of a prepared directory of one shard."""
    (shard,) = manifest.shards
    batch = read_arrow(directory / shard.file)
    flat = {
        f.name: batch[f.name].flatten().to_numpy() for f in batch.schema if pa.types.is_list(f.type)
    }
    scalars = {n: batch[n].to_numpy() for n in batch.schema.names if n not in flat}
    return flat | scalars


def test_published_layout(tmp_path: Path) -> None:
    write_csv_layout(tmp_path / "KuaiRand")
    source = open_source(tmp_path / "KuaiRand")
    assert source.name == "KuaiRand"
    manifest = prepare(source, tmp_path / "out", PrepareOptions(fractions=(0.5, 0.5, 0)))
    rows = columns_of(tmp_path / "out", manifest)
    assert manifest.counts["duplicates"] == 1  # the fourth row differs in profile_stay_time
    assert rows["member_id"].tolist() == [7, 8]
    assert rows["item_id"].tolist() == [1, 2, 2, 9]
    assert rows["session"].tolist() == [0, 0, 0, 0]
    assert rows["share"].tolist() == [0, 1, 1, 0]
    assert rows["contribution"].tolist() == [0, 1, 1, 1]
    assert rows["hate"].tolist() == [0, 0, 0, 1]
    assert rows["is_random"].tolist() == [0, 1, 1, 0]
    assert rows["surface"].tolist() == [1, 4, 4, 0]
    assert rows["hour"].tolist() == [16, 16, 16, 0]  # UTC+8
    assert rows["actor_id"].tolist() == [100, 101, 101, MISSING]
    assert rows["tag"].tolist() == [20, MISSING, MISSING, MISSING]
    assert rows["music_type"].tolist() == [9, MISSING, MISSING, MISSING]
    assert (rows["user_fans"] == MISSING).tolist() == [False, False, False, True]
    np.testing.assert_array_equal(rows["play_time_ms"], [30_000, 0, 0, 600_000])
    np.testing.assert_array_equal(rows["duration_ms"], [10_000, np.nan, np.nan, 800_000])
    np.testing.assert_allclose(rows["video_age_days"], [2 + 16 / 24, 0, 0, np.nan])
    assert manifest.counts["without_item"] == 1


def test_bad_cells_of_the_csv_layout_are_named(tmp_path: Path) -> None:
    write_csv_layout(tmp_path)
    path = tmp_path / "data" / "log_standard_4_22_to_5_08_pure.csv"
    for old, new, message in (
        (",50000,", ",long,", r"row 1, column 'play_time_ms': value 'long' is not Int64"),
        ("\n8,9", "\nx8,9", r"row 5, column 'user_id': value 'x8' is not Int64"),
        (",900000,", ",,", ""),
        ("1650643200000,1", "1650643200000,3", r"row 5, column 'click' \('is_click' in the file\)"),
    ):
        path.write_text(LOG.replace(old, new))
        if message:
            with pytest.raises(BadInput, match=message):
                prepare(open_source(tmp_path), tmp_path / "out")
        else:
            prepare(open_source(tmp_path), tmp_path / "out0", PrepareOptions(fractions=(1, 0, 0)))
    (tmp_path / "data" / "video_features_basic_pure.csv").unlink()
    with pytest.raises(
        BadInput, match=r"lacks video_features_basic\* .*unpack one of KuaiRand-Pure"
    ):
        open_source(tmp_path)


@needs_slice
def test_slice_equals_direct_counts(tmp_path: Path) -> None:
    options = PrepareOptions(session_gap_ms=6 * 3_600_000, context_block=10)
    manifest = prepare(open_source(SLICE), tmp_path, options)
    log = pl.read_parquet(SLICE / "log_standard.parquet")
    assert manifest.counts["impressions"] == log.height == 193_964
    assert manifest.counts["members"] == log["user_id"].n_unique()
    sessions = log.sort("user_id", "time_ms").select(
        (pl.col("time_ms").diff().over("user_id").fill_null(10**9) > 6 * 3_600_000).sum()
    )
    assert manifest.counts["sessions"] == sessions.item()
    history = pl.read_parquet(SLICE / "watch_history_before.parquet")
    known = history.filter(pl.col("user_id").is_in(log["user_id"].unique().implode()))
    assert manifest.counts["context"] == known["video_id"].list.len().sum()
    assert manifest.counts["context_targets"] == manifest.counts["context"] == 785_266
    assert sum(s.impressions for s in manifest.splits.values()) == log.height
    rows = columns_of(tmp_path, manifest)
    for ours, theirs in (
        ("click", "is_click"),
        ("long_dwell", "long_view"),
        ("share", "is_forward"),
    ):
        assert (rows[ours][rows["timestamp_ms"] >= 0] == 1).sum() == log[theirs].sum()
    untimed = rows["timestamp_ms"] < 0
    assert set(rows["click"][untimed]) == {-1}
    assert (rows["long_dwell"][untimed] == 1).sum() == known["long_view"].list.sum().sum()
    assert (rows["like"][untimed] == 1).sum() == known["is_like"].list.sum().sum()
    assert not (rows["actor_id"] == MISSING).any()
    assert np.isnan(rows["play_time_ms"][untimed]).all()
    assert np.isnan(rows["video_age_days"][untimed]).all()
    assert (rows["hour"][untimed] == MISSING).all()
    assert (
        np.isnan(rows["duration_ms"][untimed]).mean() < 0.05
    )  # the duration of the video, if known
    assert manifest.columns["item_id"].distinct == len(np.unique(rows["item_id"]))


@needs_slice
def test_slice_written_as_csv_prepares_to_the_same_rows(tmp_path: Path) -> None:
    typed, text = tmp_path / "typed", tmp_path / "text"
    for directory in (typed, text):
        directory.mkdir()
    for name in ("log_standard", "video_features_basic", "user_features"):
        frame = pl.read_parquet(SLICE / f"{name}.parquet")
        frame = frame.head(3000) if name == "log_standard" else frame
        frame.write_parquet(typed / f"{name}.parquet")
        frame.write_csv(text / f"{name}.csv")
    manifests = [prepare(open_source(d), tmp_path / f"{d.name}-out") for d in (typed, text)]
    assert manifests[0].shards == manifests[1].shards
