"""What training can know of its data is refused before anything is compiled."""

import dataclasses
from pathlib import Path

import pytest

from ligr_jax.cli import main
from ligr_jax.config import ConfigError, Feature, ModelConfig
from ligr_jax.data.records import Records
from ligr_jax.train.data import require_rows_for_ids
from ligr_jax.train.loop import Trainer
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


def test_a_batch_that_leaves_devices_idle_is_announced(
    prepared: Path, tmp_path: Path, said: list[str]
) -> None:
    config = small_config(prepared, "optim.batch=2")
    Trainer(config, Records(prepared), tmp_path / "run")
    assert "optim.batch=2 uses 2 of 8 devices; a multiple of 8 uses all" in said
