"""Evaluation of a run on data prepared later, and its row for a leaderboard."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ligr_jax.cli import main
from ligr_jax.config import ConfigError, override
from ligr_jax.data.manifest import load_manifest
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.prepare.splits import SplitTimes
from ligr_jax.data.sources.canonical import canonical_source
from ligr_jax.runs.directory import load_config
from ligr_jax.runs.trained_data import load_trained_data
from ligr_jax.train.evaluate import restore
from ligr_jax.train.evaluation_row import ROW_FIELDS, evaluation_row
from ligr_jax.train.later_data import open_later_data, require_same_schema

DAYS_10 = 10 * 86_400_000


@pytest.fixture(scope="module")
def later(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log of `prepared` and ten more days; its validation split is the test split before."""
    log = tmp_path_factory.mktemp("later") / "log"
    shutil.copytree(prepared.parent / "log", log)
    (file,) = log.glob("impressions-*")
    rows = pl.read_parquet(file)
    more = rows.with_columns(pl.col("timestamp_ms") + DAYS_10, pl.col("age_days") * 100)
    pl.concat([rows, more]).write_parquet(file)
    test = load_manifest(prepared).splits["test"]
    options = PrepareOptions(splits=SplitTimes(test.start_ms, test.end_ms), shard_rows=1000)
    prepare(canonical_source(log), log.parent / "prepared", options)
    return log.parent / "prepared"


def test_common_rows_have_equal_metrics_and_the_row_has_both_digests(
    prepared: Path, later: Path, finished: Path, said: list[str]
) -> None:
    quantiles = [load_manifest(d).columns["age_days"].quantiles for d in (prepared, later)]
    assert quantiles[0] != quantiles[1]
    before = evaluation_row(finished, "test")
    after = evaluation_row(finished, "validation", later)
    assert list(before)[: len(ROW_FIELDS)] == list(ROW_FIELDS)
    assert before["data"] == before["trained_on"] == load_manifest(prepared).digest
    assert after["data"] == load_manifest(later).digest
    assert after["trained_on"] == before["data"]
    same = ("config", "step", "kind", "seed", "impressions", "members", "params_dense")
    same += ("params_tables", "flops_model", "trained_impressions", "version", "commit")
    assert {k: before[k] for k in same} == {k: after[k] for k in same}
    ratio = after["flops_per_impression"] / before["flops_per_impression"]
    assert ratio == pytest.approx(1, rel=0.2)  # rows are packed in another order
    summary = json.loads((finished / "summary.json").read_text())
    assert before["flops_model"] == pytest.approx(summary["flops_model"])
    assert before["params_dense"] == summary["params_dense"]
    metrics = {k: v for k, v in before.items() if "/" in k}
    renamed = {k.replace("test/", "validation/"): v for k, v in metrics.items()}
    assert renamed.keys() <= after.keys()
    for name, value in renamed.items():  # cold items and members included
        assert after[name] == pytest.approx(value, rel=1e-4, nan_ok=True), name
    assert any("scaled by the statistics of the training data" in line for line in said)
    assert not any("trained on some of its rows" in line for line in said)


def test_export_needs_the_data_of_the_training(later: Path, finished: Path) -> None:
    with pytest.raises(ConfigError, match=r"the run was trained on .* pass the data it was"):
        restore(finished, later)


def test_data_that_do_not_fit_are_refused_with_the_field(later: Path, finished: Path) -> None:
    config = load_config(finished)
    trained = load_trained_data(finished, config).manifest

    def changed(name: str, **values: Any) -> Any:
        columns = {**trained.columns, name: dataclasses.replace(trained.columns[name], **values)}
        return dataclasses.replace(trained, columns=columns)

    table = {**trained.source, "format": "table"}
    for manifest, message in (
        (changed("surface", kind="numeric"), r"model.features.surface"),
        (changed("content", width=5), r"model.features.content.width=4"),
        (changed("dwell_s", outcome=False), r"column 'dwell_s': outcome is False, and True"),
        (dataclasses.replace(trained, actions=("click",)), r"no labels of \['like'\]"),
        (dataclasses.replace(trained, columns={}), r"no column of this name"),
        (dataclasses.replace(trained, source=table), r"source.format .* is 'table', and 'canon"),
    ):
        with pytest.raises(ConfigError, match=f"DIR does not fit the run: .*{message}"):
            require_same_schema(config.model, trained, manifest, Path("DIR"))
    direct = override(
        config, ["model.features.item_id.lookup=direct", "model.features.item_id.rows=9"]
    )
    with pytest.raises(ConfigError, match=r"model.features.item_id.lookup=direct .* holds id"):
        open_later_data(finished, direct, later)


def test_trained_rows_and_another_session_gap_are_named(
    prepared: Path, finished: Path, tmp_path: Path, said: list[str]
) -> None:
    options = PrepareOptions(fractions=(0.5, 0.35, 0.15), session_gap_ms=60_000)
    prepare(canonical_source(prepared.parent / "log"), tmp_path, options)
    open_later_data(finished, load_config(finished), tmp_path)
    assert sum("trained on some of its rows" in line for line in said) == 1  # validation
    assert any("a gap of 60000 ms, and of 1800000 ms in the training" in line for line in said)


def test_a_run_of_an_earlier_release_needs_its_data(
    prepared: Path, finished: Path, tmp_path: Path
) -> None:
    shutil.copy(finished / "config.json", tmp_path)
    config = load_config(tmp_path)
    known = load_trained_data(tmp_path, config)
    assert known.manifest.columns == load_manifest(prepared).columns
    moved = dataclasses.replace(config, data=dataclasses.replace(config.data, dir="/gone"))
    with pytest.raises(ConfigError, match=r"has no data.json, .* restore these data"):
        load_trained_data(tmp_path, moved)


def test_data_prepared_again_need_data_by_name(
    later: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    content = json.loads((finished / "config.json").read_text())
    del content["digest"]
    content["data"]["dir"] = str(later)
    (run / "config.json").write_text(json.dumps(content))
    assert main(["eval", str(run)]) == 1
    assert re.search("was prepared again: .* pass --data", capsys.readouterr().err)


def test_the_documentation_lists_the_fields_of_a_row() -> None:
    page = Path(__file__).parents[2] / "docs" / "comparing.md"
    listed = re.findall(r"^\| `(\w+)` \| (.*) \|$", page.read_text(), re.MULTILINE)
    assert dict(listed) == ROW_FIELDS
