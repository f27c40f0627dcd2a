"""Open Bandit: a table without members, weighted by inverse propensities."""

from pathlib import Path

import numpy as np
import pytest

from ligr_jax.data.manifest import MISSING
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.formats import open_source
from tests.data.logs import read_rows

HEADER = (
    ",timestamp,item_id,position,click,propensity_score,user_feature_0,user_feature_1,"
    "user_feature_2,user_feature_3,user-item_affinity_0,user-item_affinity_1\n"
)
TIME = "2019-11-24 00:00:00"
CONTEXT = ",item_id,item_feature_0,item_feature_1,item_feature_2,item_feature_3\n0,0,-0.5,a,b,c\n"
FIRST = f"0,{TIME}.000045+00:00,0,3,0,0.5,u0,u1,u2,u3,0,7\n"
SECOND = f"1,{TIME}.732549+00:00,1,2,1,0.125,u0,,u2,u3,0,7\n"


def write(directory: Path, policy: str, campaign: str, rows: str) -> None:
    place = directory / policy / campaign
    place.mkdir(parents=True)
    (place / f"{campaign}.csv").write_text(HEADER + rows)
    (place / "item_context.csv").write_text(CONTEXT)


def test_both_policies_and_all_campaigns_are_one_table(tmp_path: Path) -> None:
    write(tmp_path / "obd", "random", "men", FIRST + SECOND)
    write(tmp_path / "obd", "bts", "men", FIRST)
    write(tmp_path / "obd", "bts", "all", FIRST)
    source = open_source(tmp_path / "obd")
    assert source.name == "Open Bandit"
    manifest = prepare(source, tmp_path / "out", PrepareOptions(fractions=(1, 0, 0)))
    members = read_rows(tmp_path / "out" / manifest.shards[0].file)
    by_id = {
        m["member_id"]: {k: v[0] for k, v in m.items() if isinstance(v, list)} for m in members
    }
    assert sorted(by_id) == [1, 2, 3, 4]  # by path: bts/all, bts/men, random/men
    assert [by_id[k]["is_random"] for k in (1, 2, 3, 4)] == [0, 0, 1, 1]
    assert [by_id[k]["weight"] for k in (1, 2, 3, 4)] == [2, 2, 2, 8]
    assert [by_id[k]["click"] for k in (1, 2, 3, 4)] == [0, 0, 0, 1]
    assert by_id[4]["timestamp_ms"] == 1_574_553_600_732
    assert by_id[4]["user_feature_1"] == MISSING
    # Items are those of their campaign, and the same under both policies.
    assert by_id[1]["item_id"] != by_id[2]["item_id"] == by_id[3]["item_id"]
    np.testing.assert_array_equal([by_id[k]["item_feature_0"] for k in (2, 4)], [-0.5, np.nan])
    assert not any("affinity" in name for name in manifest.columns)


def test_a_directory_of_one_campaign_is_enough(tmp_path: Path) -> None:
    write(tmp_path, "random", "women", FIRST)
    source = open_source(tmp_path / "random" / "women")
    assert next(source.batches(10, "error")).frame["is_random"].to_list() == [True]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (FIRST.replace("0.5", "0"), r"row 1, column 'propensity_score': value 0.0 is not a prob"),
        (FIRST + SECOND.replace("+00:00", ""), r"row 2, column 'timestamp': .* is no time"),
        (FIRST.replace("2019", "2020"), r"after the period of Open Bandit"),
    ],
    ids=["propensity", "time", "period"],
)
def test_bad_input_is_refused(tmp_path: Path, rows: str, message: str) -> None:
    write(tmp_path / "obd", "bts", "men", rows)
    with pytest.raises(BadInput, match=message):
        prepare(open_source(tmp_path / "obd"), tmp_path / "out")
