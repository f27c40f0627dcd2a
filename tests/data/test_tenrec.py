"""Tenrec QK-Video: order without times splits each history, and no gap or hour is computed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ligr_jax.commands.eval import metrics_table
from ligr_jax.config import Config, ConfigError, Feature, ModelConfig
from ligr_jax.data.assemble import Assembler, check_columns
from ligr_jax.data.manifest import load_manifest
from ligr_jax.data.packing import make_packing_plan
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.prepare.splits import SplitTimes
from ligr_jax.data.prepare.summary import format_summary, load_log_summary
from ligr_jax.data.records import Records
from ligr_jax.data.schema import BadInput, load_schema, save_schema
from ligr_jax.data.sources.formats import open_source
from ligr_jax.data.sources.tenrec import SCHEMA
from ligr_jax.train.measure import Predictions, measure
from tests.data.test_kuairand import columns_of

SAMPLE = Path(__file__).parents[2].parent / "shared" / "data" / "samples" / "tenrec"
needs_sample = pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"no sample of Tenrec in {SAMPLE}")
HEADER = "user_id,item_id,click,follow,like,share,video_category,watching_times,gender,age\n"


def write_csv(directory: Path) -> None:
    """Write 25 rows of user 5 with one row of user 3 after each of the first five; and a repeat."""
    lines = []
    for k in range(25):
        lines.append(f"5,{100 + k},{k % 2},0,0,0,1,{3 * (k % 2)},1,2\n")
        lines += [f"3,{200 + k},0,0,{int(k == 4)},0,,0,0,0\n"] * (k < 5)
    lines.append(lines[0])
    (directory / "QK-video.csv").write_text(HEADER + "".join(lines))


def test_each_history_is_split_by_order_and_sessions_are_blocks(tmp_path: Path) -> None:
    write_csv(tmp_path)
    source, out = open_source(tmp_path), tmp_path / "out"
    assert source.name == "Tenrec's QK-Video"
    manifest = prepare(source, out, PrepareOptions(fractions=(0.6, 0.2, 0.2)))
    assert manifest == load_manifest(out)
    assert manifest.time_is_order
    assert manifest.split_per_member
    rows = columns_of(out, manifest)
    assert rows["member_id"].tolist() == [3, 5]
    assert rows["item_id"].tolist() == [*range(200, 205), *range(100, 125)]
    splits = [rows[f"n_{split}"].tolist() for split in ("context", "train", "validation", "test")]
    assert splits == [[0, 0], [3, 15], [1, 5], [1, 5]]
    assert rows["session"].tolist() == [0] * 5 + [0] * 10 + [1] * 10 + [2] * 5
    assert rows["like"].tolist() == [0] * 4 + [1] + [0] * 25
    assert manifest.columns["watching_times"].outcome
    assert manifest.counts["duplicates"] == 1
    summary = load_log_summary(out)
    assert summary["first"] is None
    assert summary["median_gap_ms"] is None
    assert all("a model cannot learn" in warning for warning in summary["warnings"])
    text = format_summary(manifest, summary, out)
    assert "  no times, 2.0 sessions per member\n" in text
    assert "-> time" not in text
    assert "sessions are blocks of 10 rows" in text
    assert "the splits are not by time" in text
    with pytest.raises(BadInput, match=r"only the order of each member's rows; give --fractions"):
        prepare(source, tmp_path / "other", PrepareOptions(splits=SplitTimes(1, 2)))


def test_nothing_reads_a_time_that_is_an_order(tmp_path: Path) -> None:
    write_csv(tmp_path)
    prepare(open_source(tmp_path), tmp_path / "out")
    with pytest.raises(BadInput, match=r"data.edges=0,1,2,3: .*has no times; prepare it again"):
        Records(tmp_path / "out", (0, 1, 2, 3))
    records = Records(tmp_path / "out")
    model = ModelConfig(features={"item_id": Feature(rows=256, lookup="direct")})
    with pytest.raises(ConfigError, match=r"model.position=relative_time needs times"):
        check_columns(replace(model, position="relative_time"), records.manifest)
    plan = make_packing_plan(records, "train", 32)
    batch = Assembler(records, plan, model)(np.arange(len(plan)))
    assert (batch.member > 0).any()
    assert not batch.time.any()
    # The metrics and their table say how the data are split.
    index = np.arange(5)
    predictions = Predictions(index, np.zeros((5, 1), np.float32), np.eye(5, 1, dtype=np.int8))
    numbers = measure(predictions, records, Config(model=model), "test")
    assert numbers["not_split_by_time"]
    assert "not split by time: the last rows" in metrics_table(numbers, "test")


def test_leave_one_out_needs_only_the_order(tmp_path: Path) -> None:
    write_csv(tmp_path)
    options = PrepareOptions(fractions=(1, 0, 0), leave_one_out=True)
    manifest = prepare(open_source(tmp_path), tmp_path / "out", options)
    assert manifest.split_per_member
    assert [s.impressions for s in manifest.splits.values()] == [26, 2, 2]
    assert sum("not by time" in note for note in manifest.notes) == 1


def test_the_schema_keeps_the_order(tmp_path: Path) -> None:
    save_schema(SCHEMA, tmp_path)
    assert load_schema(tmp_path) == SCHEMA


def test_bad_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "QK-video.csv"
    path.write_text(HEADER.replace(",click", "") + "1,2,0,0,0,1,0,1,2\n")
    with pytest.raises(BadInput, match=r"QK-video.csv lacks the columns \['click'\] of Tenrec"):
        open_source(tmp_path, "tenrec")
    path.write_text(HEADER + "1,2,0,0,0,0,1,0,1,2\n1,x,0,0,0,0,1,0,1,2\n")
    with pytest.raises(BadInput, match=r"QK-video.csv, row 2, column 'item_id': value 'x' is not"):
        prepare(open_source(tmp_path), tmp_path / "out")


@needs_sample
def test_sample_equals_direct_counts(tmp_path: Path) -> None:
    manifest = prepare(open_source(SAMPLE), tmp_path)
    log = pl.read_csv(SAMPLE / "QK-video.csv").unique(maintain_order=True)
    rows = columns_of(tmp_path, manifest)
    assert manifest.counts["impressions"] == log.height
    assert manifest.counts["members"] == log["user_id"].n_unique()
    ordered = log.sort("user_id", maintain_order=True)
    members = np.repeat(rows["member_id"], np.diff(Records(tmp_path).offsets))
    read = pl.DataFrame({"user_id": members, "item_id": rows["item_id"]})
    read = read.sort("user_id", maintain_order=True)
    assert read.equals(ordered.select("user_id", "item_id"))
    for name in ("click", "follow", "like", "share"):
        assert (rows[name] == 1).sum() == log[name].sum()
    lengths = log.group_by("user_id").len()["len"].to_numpy()
    train = np.ceil(lengths * 0.8).sum()
    assert manifest.splits["train"].impressions == train
