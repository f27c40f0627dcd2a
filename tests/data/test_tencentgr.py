"""TencentGR: an element of a sequence is an exposure, and conversions are known late."""

from pathlib import Path

import polars as pl
import pytest

from ligr_jax.data.manifest import MISSING
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.formats import open_source
from tests.data.logs import read_rows

SAMPLE = Path(__file__).parents[2].parent / "shared" / "data" / "samples" / "tencentgr"
START_S = 1_746_500_000
EVENT = {"item_id": pl.Int64, "action_type": pl.Int64, "timestamp": pl.Int64}


def write_layout(directory: Path, unit: int = 1, action: int = 2) -> None:
    """Write two users with sequences and one without, in the layout of one file per table."""
    directory.mkdir()
    sequences = [
        [(5, 0, START_S), (6, 1, START_S), (5, action, START_S + 7200)],
        [(9, None, START_S + 10)],
        [],
    ]
    rows = [
        [dict(zip(EVENT, (item, label, time * unit))) for item, label, time in events]
        for events in sequences
    ]
    schema = {"user_id": pl.Int64, "seq": pl.List(pl.Struct(EVENT))}
    pl.DataFrame({"user_id": [1, 2, 3], "seq": rows}, schema).write_parquet(
        directory / "seq.parquet"
    )
    pl.DataFrame({"user_id": [2, 1], "103": [31, 30], "106": [None, [8, 7]]}).write_parquet(
        directory / "user_feat.parquet"
    )
    pl.DataFrame({"item_id": [5, 6], "100": [50, None], "name": ["x", "y"]}).write_parquet(
        directory / "item_feat.parquet"
    )


def test_published_layout(tmp_path: Path) -> None:
    write_layout(tmp_path / "in")
    source = open_source(tmp_path / "in")
    assert source.name == "TencentGR"
    manifest = prepare(source, tmp_path / "out", PrepareOptions(fractions=(1, 0, 0)))
    assert manifest.late_actions == ("conversion",)
    first, second = read_rows(tmp_path / "out" / manifest.shards[0].file)
    assert (first["member_id"], second["member_id"]) == (1, 2)
    assert first["timestamp_ms"] == [START_S * 1000] * 2 + [(START_S + 7200) * 1000]
    assert first["session"] == [0, 0, 1]
    assert first["item_id"] == [5, 6, 5]
    assert first["click"] == [0, 1, 1]
    assert first["conversion"] == [0, 0, 1]
    assert first["user_103"] == [30] * 3
    assert first["user_106"] == [[8, 7]] * 3
    assert first["item_100"] == [50, MISSING, 50]
    assert (second["click"], second["conversion"]) == ([-1], [-1])
    assert (second["user_103"], second["user_106"]) == ([31], [[]])
    assert manifest.counts["without_item"] == 1


def test_tables_may_be_directories(tmp_path: Path) -> None:
    write_layout(tmp_path / "in")
    sequences = pl.read_parquet(tmp_path / "in" / "seq.parquet")
    (tmp_path / "in" / "seq.parquet").unlink()
    for k in range(2):
        (tmp_path / "in" / "seq").mkdir(exist_ok=True)
        sequences[k::2].write_parquet(tmp_path / "in" / "seq" / f"{k}.parquet")
    frames = [b.frame for b in open_source(tmp_path / "in").batches(2, "error")]
    assert pl.concat(frames)["member_id"].to_list() == [1, 1, 1, 2]


@pytest.mark.parametrize(
    ("unit", "action", "message"),
    [
        (1000, 2, r"column 'seq', field 'timestamp': .* the values are millis"),
        (1, 3, r"row 1, column 'action_type': value 3 is not 0 \(exposure\), 1 \(click\)"),
    ],
)
def test_another_unit_or_action_is_refused(
    tmp_path: Path, unit: int, action: int, message: str
) -> None:
    write_layout(tmp_path / "in", unit, action)
    with pytest.raises(BadInput, match=message):
        prepare(open_source(tmp_path / "in"), tmp_path / "out")


def test_missing_files_and_fields_are_named(tmp_path: Path) -> None:
    write_layout(tmp_path / "in")
    (tmp_path / "in" / "item_feat.parquet").unlink()
    path = tmp_path / "in" / "seq.parquet"
    frame = pl.read_parquet(path)
    element = pl.element().struct.rename_fields(["item_id", "action_type", "time"])
    frame.with_columns(pl.col("seq").list.eval(element)).write_parquet(path)
    with pytest.raises(BadInput, match=r"lacks item_feat.*lack the fields \['timestamp'\]"):
        open_source(tmp_path / "in")


@pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"no sample of TencentGR in {SAMPLE}")
def test_sample_equals_direct_counts(tmp_path: Path) -> None:
    manifest = prepare(open_source(SAMPLE), tmp_path)
    events = pl.read_parquet(SAMPLE / "seq.parquet").explode("seq").unnest("seq")
    assert manifest.counts["impressions"] == events.height == 396
    positive = {
        action: round(
            sum(s.impressions * s.positive_rate[action] for s in manifest.splits.values())
        )
        for action in manifest.actions
    }
    types = dict(events["action_type"].value_counts().iter_rows())
    assert positive == {"click": types[1] + types[2], "conversion": types[2]}
    features = {*(f"user_{n}" for n in (103, 104, 105, 109)), "item_100", "item_122"}
    assert features < {k for k, c in manifest.columns.items() if c.kind == "categorical"}
    bags = {k for k, c in manifest.columns.items() if c.kind == "bag"}
    assert bags == {f"user_{n}" for n in (106, 107, 108, 110)}
