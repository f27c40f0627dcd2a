"""Training refuses unsuitable data before anything is compiled."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from ligr_jax.cli import main
from ligr_jax.config import ConfigError, Feature, ModelConfig, config_to_json
from ligr_jax.data.records import Records
from ligr_jax.runs.directory import load_config, write_or_verify_config
from ligr_jax.train.evaluate import config_here
from ligr_jax.train.loop import Trainer, train
from ligr_jax.train.preflight import require_rows_for_ids
from tests.train.runs import SMALL, small_config


def test_an_id_without_a_row_is_refused_before_training(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    largest = int(Records(prepared).feature("item_id").max())
    out = tmp_path / "run"
    feature = "model.features.item_id"
    words = [f"{feature}.lookup=direct", f"{feature}.rows={largest}"]
    assert main(["train", "--data", str(prepared), "--out", str(out), *SMALL, *words]) == 1
    said = capsys.readouterr()
    assert f"{feature}.lookup=direct has a row for ids 0 to {largest - 2}" in said.err
    assert f"set {feature}.rows >= {largest + 2}, or lookup=hash" in said.err
    assert "step" not in said.out


def test_ids_of_items_and_impressions_with_a_row_each_are_accepted(prepared: Path) -> None:
    records = Records(prepared)
    for name in ("item_id", "actor_id"):
        enough = Feature(rows=int(records.feature(name).max()) + 2, lookup="direct")
        require_rows_for_ids(ModelConfig(features={name: enough}), records)
        short = dataclasses.replace(enough, rows=enough.rows - 1)
        with pytest.raises(ConfigError, match=rf"model.features.{name}.rows >= {enough.rows}"):
            require_rows_for_ids(ModelConfig(features={name: short}), records)


def test_the_place_of_an_id_is_named(prepared: Path) -> None:
    """Where the id occurs first: file, column, member and split, as the columns have them."""
    records = Records(prepared)
    ids, split = records.feature("item_id"), np.full(len(records), "", object)
    for member, counts in enumerate(records.counts):
        parts = np.repeat(["untimed", "train", "validation", "test"], counts)
        split[records.offsets[member] : records.offsets[member] + len(parts)] = parts
    first = {int(i): int(np.flatnonzero(ids == i)[0]) for i in np.unique(ids)}
    # One id that occurs first in each split.
    chosen = {split[k]: k for k in first.values()}
    assert {"train", "test"} <= set(chosen)
    for name, k in chosen.items():
        member = records.member_ids[np.searchsorted(records.offsets, k, side="right") - 1]
        shard = records.manifest.shards[int(np.searchsorted(records._starts, k, side="right")) - 1]
        assert records.locate_id("item_id", ids[k]) == (
            f"{prepared / shard.file}, column 'item_id', member {member}, in the {name} split,"
        )


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("train.eval_every=5", "train.eval_every=5 measures the validation split, which has no"),
        ("model.implementation=gpu", "for GPUs, .* are of the kind 'cpu'; leave .*=auto"),
        ("model.implementation=tpu", "for TPUs, .* are of the kind 'cpu'; leave .*=auto"),
    ],
)
def test_what_would_fail_later_is_refused_and_the_directory_is_free(
    prepared: Path, tmp_path: Path, assignment: str, words: str
) -> None:
    edges = Records(prepared).manifest.splits
    start, middle, end = edges["train"].start_ms, edges["train"].end_ms, edges["test"].end_ms
    empty = f"data.edges={start},{middle},{middle},{end}"
    with pytest.raises(ConfigError, match=words):
        train(small_config(prepared, empty, assignment), tmp_path / "run")
    write_or_verify_config(tmp_path / "run", small_config(prepared))  # of other values


def test_a_run_of_another_kind_of_device_is_evaluated(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    config = load_config(finished)
    model = dataclasses.replace(config.model, implementation="gpu")
    (tmp_path / "run" / "config.json").write_text(
        config_to_json(dataclasses.replace(config, model=model))
    )
    assert config_here(tmp_path / "run").model.implementation == "auto"


def test_a_batch_that_leaves_devices_idle_is_announced(
    prepared: Path, tmp_path: Path, said: list[str]
) -> None:
    config = small_config(prepared, "optim.batch=2")
    Trainer(config, Records(prepared), tmp_path / "run")
    assert "optim.batch=2 uses 2 of 8 devices; a multiple of 8 uses all" in said
