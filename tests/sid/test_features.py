"""From content to model input: `ligr sid train`, `assign` and `attach` in sequence."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ligr_jax.cli import main as ligr
from ligr_jax.data.assemble import Assembler
from ligr_jax.data.batch import Batch
from ligr_jax.data.manifest import MISSING
from ligr_jax.data.packing import make_packing_plan
from ligr_jax.data.records import Records
from ligr_jax.scaling.ladder import configure
from tests.data.logs import ACTIONS, write_log

OLD, NEW = 7, 100


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frozen encoder of the log's first content, and the log."""
    directory = tmp_path_factory.mktemp("sid")
    write_log(directory / "log", rows=900, vector=4)
    ok(["prepare", directory / "log", "--out", directory / "prepared"])
    train_ids(directory / "prepared", directory / "model")
    return directory / "model"


def ok(words: list[object]) -> None:
    assert ligr([str(w) for w in words]) == 0


def train_ids(prepared: Path, model: Path) -> None:
    size = {"codes": 8, "latent": 4, "hidden": 8, "batch": 16, "steps": 30}
    options = [f"--{name}={value}" for name, value in size.items()]
    ok(["sid", "train", prepared, "--out", model, *options])


def attached(model: Path, log: Path) -> Path:
    """The log, prepared, with the model's semantic ids."""
    ok(["prepare", log, "--out", log / "prepared"])
    ok(["sid", "assign", model, log / "prepared", "--out", log / "ids.parquet"])
    ok(["sid", "attach", log / "ids.parquet", log / "prepared", "--out", log / "out"])
    return log / "out"


def batch_of(data: Path) -> Batch:
    """All train rows, as read by a model with semantic ids only."""
    records = Records(data)
    config = configure(records.manifest, data, ["model.features=sid1,sid2,sid3"])
    plan = make_packing_plan(records, "train", 64)
    return Assembler(records, plan, config.model)(np.arange(len(plan)))


def test_a_new_item_is_read_by_its_content(model: Path, tmp_path: Path) -> None:
    """With the content of a known item, unknown to the encoder and the log, it gives a model of
    semantic ids the same input, and so has the same score."""
    logs = []
    for name in ("known", "new"):
        log = tmp_path / name
        write_log(log, rows=900, vector=4)
        if name == "new":
            for file in ("impressions-00000.parquet", "items.parquet"):
                table = pl.read_parquet(log / file)
                renamed = table.with_columns(pl.col("item_id").replace(OLD, NEW))
                renamed.write_parquet(log / file)
        logs.append(attached(model, log))
    known, new = (Records(log) for log in logs)
    assert (known.feature("item_id") == OLD).sum() == (new.feature("item_id") == NEW).sum() > 0
    a, b = (batch_of(log) for log in logs)
    assert set(a.ids) == {"sid1", "sid2", "sid3"}
    for name, rows in a.ids.items():
        assert (rows[a.member > 0] > 0).all()
        np.testing.assert_array_equal(rows, b.ids[name])
    assert len(np.unique(a.ids["sid3"])) > 8


def test_an_item_without_content_has_no_semantic_id(model: Path, tmp_path: Path) -> None:
    write_log(tmp_path / "log", rows=900, vector=4)
    items = pl.read_parquet(tmp_path / "log" / "items.parquet")
    empty = pl.when(pl.col("item_id") == OLD).then(pl.col("content") * 0).otherwise("content")
    items.with_columns(content=empty).write_parquet(tmp_path / "log" / "items.parquet")
    records = Records(attached(model, tmp_path / "log"))
    ids = records.feature("sid1", np.arange(len(records)))
    np.testing.assert_array_equal(ids == MISSING, records.feature("item_id") == OLD)


def test_labels_do_not_move_the_encoder(model: Path, tmp_path: Path) -> None:
    """Inverting every label gives the same model of semantic ids."""
    write_log(tmp_path / "log", rows=900, vector=4)
    path = tmp_path / "log" / "impressions-00000.parquet"
    pl.read_parquet(path).with_columns(pl.col(*ACTIONS) == 0).write_parquet(path)
    ok(["prepare", tmp_path / "log", "--out", tmp_path / "prepared"])
    train_ids(tmp_path / "prepared", tmp_path / "model")
    arrays = [np.load(m / "model.npz") for m in (model, tmp_path / "model")]
    assert arrays[0].files == arrays[1].files
    for name in arrays[0].files:
        np.testing.assert_array_equal(arrays[0][name], arrays[1][name])
