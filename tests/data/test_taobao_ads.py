"""Taobao display ads: impressions with their advertisement and user, without the behaviour log."""

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

SAMPLE = Path(__file__).parents[2].parent / "shared" / "data" / "samples" / "taobao_ads"
FILES = {
    "raw_sample": """\
user,time_stamp,adgroup_id,pid,nonclk,clk
7,1494000000,1,430548_1007,1,0
7,1494000600,2,430539_1007,0,1
8,1494000000,3,430548_1007,1,0
""",
    "ad_feature": """\
adgroup_id,cate_id,campaign_id,customer,brand,price
1,10,100,1000,NULL,3.5
2,20,200,2000,5,1e3
""",
    "user_profile": """\
userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,shopping_level,occupation,\
new_user_class_level\x20
7,1,2,1,4,,3,0,
""",
    "behavior_log": "user,time_stamp,btag,cate,brand\nthis is never read\n",
}


def write_layout(directory: Path, **changes: str) -> None:
    directory.mkdir()
    for name, text in {**FILES, **changes}.items():
        (directory / f"{name}.csv").write_text(text)


def test_published_layout(tmp_path: Path) -> None:
    write_layout(tmp_path / "in")
    source = open_source(tmp_path / "in")
    assert source.name == "Taobao display ads"
    manifest = prepare(source, tmp_path / "out", PrepareOptions(fractions=(1, 0, 0)))
    first, second = read_rows(tmp_path / "out" / manifest.shards[0].file)
    assert first["timestamp_ms"] == [1_494_000_000_000, 1_494_000_600_000]
    assert first["hour"] == [0, 0]  # 5 May, 16:00 UTC
    assert first["click"] == [0, 1]
    assert first["actor_id"] == [1000, 2000]
    assert first["brand"] == [MISSING, 5]
    np.testing.assert_allclose(first["price"], [3.5, 1000])
    assert first["user_age_level"] == [4, 4]
    assert first["user_consumption_level"] == first["user_city_level"] == [MISSING] * 2
    assert second["user_group"] == second["category"] == [MISSING]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"raw_sample": FILES["raw_sample"].replace("00,", "00000,")}, r"the values are millis"),
        (
            {"raw_sample": FILES["raw_sample"].replace("1,0\n", "1,1\n")},
            r"column 'nonclk': value 1 \(row 1\) contradicts clk",
        ),
        ({"ad_feature": "adgroup_id,cate_id\n1,2\n"}, r"ad_feature.csv lacks the columns"),
    ],
    ids=["unit", "contradiction", "columns"],
)
def test_bad_input_is_refused(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    write_layout(tmp_path / "in", **changes)
    with pytest.raises(BadInput, match=message):
        prepare(open_source(tmp_path / "in"), tmp_path / "out")


@pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"no sample of Taobao ads in {SAMPLE}")
def test_sample_equals_direct_counts(tmp_path: Path) -> None:
    manifest = prepare(open_source(SAMPLE), tmp_path)
    log = pl.read_csv(SAMPLE / "raw_sample.csv")
    assert manifest.counts["impressions"] + manifest.counts["duplicates"] == log.height == 600
    clicks = sum(s.impressions * s.positive_rate["click"] for s in manifest.splits.values())
    assert round(clicks) == log.unique()["clk"].sum()
    assert manifest.columns["surface"].distinct == log["pid"].n_unique()
