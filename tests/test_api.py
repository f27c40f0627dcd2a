"""The library's face: training, loading and predicting from Python equal the command line."""

import json
import os
import signal
from pathlib import Path

import jax
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import log_loss, roc_auc_score

import ligr_jax
from ligr_jax.cli import main
from ligr_jax.data.assemble import Assembler
from ligr_jax.data.padding import padding_batch
from ligr_jax.data.pipeline import plan_for
from ligr_jax.data.records import Records
from ligr_jax.data.schema import BadInput
from ligr_jax.lock import Busy
from ligr_jax.runs.directory import load_summary
from ligr_jax.train import prediction_file
from ligr_jax.train.evaluate import evaluate_run, restore
from ligr_jax.train.measure import Predictions, measure
from ligr_jax.train.prediction_file import read_prediction_metadata
from tests.conftest import OnMessage
from tests.train.runs import SMALL, small_config


@pytest.fixture(scope="module")
def file(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Predictions of the test split, written in many row groups."""
    out = tmp_path_factory.mktemp("predictions") / "new" / "predictions.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prediction_file, "_GROUP_ROWS", 100)
        assert main(["predict", str(finished), "--out", str(out)]) == 0
    return out


def test_metrics_of_the_file_are_those_of_eval(
    prepared: Path, finished: Path, file: Path, said: list[str]
) -> None:
    wanted = evaluate_run(finished, "test")
    done, _, total = said[-1].removeprefix("batch ").partition("/")
    assert int(done) == int(total) > 1
    table = pl.read_parquet(file).sort("impression")
    records, config = Records(prepared), small_config(prepared)
    actions = config.model.actions
    read = Predictions(
        table["impression"].to_numpy(),
        np.stack([table[f"logit_{a}"].to_numpy() for a in actions], 1),
        np.stack([table[f"label_{a}"].fill_null(-1).to_numpy() for a in actions], 1),
    )
    assert measure(read, records, config, "test") == wanted  # to the last bit
    for a in actions:
        known = table.filter(pl.col(f"label_{a}").is_not_null())
        y, z = known[f"label_{a}"].to_numpy(), known[f"logit_{a}"].to_numpy().astype(np.float64)
        p, rate = 1 / (1 + np.exp(-z)), y.mean()
        entropy = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
        assert wanted[f"test/{a}/auc"] == pytest.approx(roc_auc_score(y, z), abs=1e-12)
        assert wanted[f"test/{a}/ne"] == pytest.approx(log_loss(y, p) / entropy, rel=1e-12)
        np.testing.assert_allclose(known[f"probability_{a}"], p, rtol=1e-7)


def test_rows_name_their_impressions_and_the_file_its_origin(
    prepared: Path, finished: Path, file: Path
) -> None:
    records = Records(prepared)
    table = pl.read_parquet(file)
    assert table["impression"].n_unique() == len(table) > 0
    assert len(table) == records.manifest.splits["test"].impressions
    for row in table.sample(20, seed=0).iter_rows(named=True):
        at = np.array([row["impression"]])
        member = np.searchsorted(records.offsets, at, side="right") - 1
        assert row["member_id"] == records.member_ids[member]
        assert row["item_id"] == records.feature("item_id", at)
        assert row["timestamp_ms"] == records.take("timestamp_ms", at)
        assert row["session"] == records.take("session", at)
        assert row["label_click"] == records.label("click", at)
    about = read_prediction_metadata(file)
    assert (about["step"], about["split"], about["data"]) == (40, "test", records.digest)
    groups = pq.ParquetFile(file).metadata
    assert groups.num_row_groups > 2
    # Memory is bounded: a group has the rows of few batches, not those of the split.
    largest = max(groups.row_group(k).num_rows for k in range(groups.num_row_groups))
    assert largest < 100 + 8 * 16
    assert [p.name for p in file.parent.iterdir()] == [file.name]  # no lock, no part


def test_a_file_is_replaced_only_on_request_and_by_one_process(
    finished: Path, file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = ["predict", str(finished), "--out", str(file), "--split", "validation"]
    before = file.read_bytes()
    assert main(command) == 1
    assert f"--out {file} exists; choose another --out, or give --overwrite" in (
        capsys.readouterr().err
    )
    assert file.read_bytes() == before
    with prediction_file._only_writer(tmp_path / "p.parquet", False), pytest.raises(Busy):
        ligr_jax.write_predictions(finished, tmp_path / "p.parquet")
    other = tmp_path / "[other].parquet"
    for stale in ("7-7.partial", "part-1"):  # what a killed process left
        (tmp_path / f".{other.name}.{stale}").touch()
    for words in ([], ["--overwrite", "--json"]):
        assert main(["predict", str(finished), "--out", str(other), *words]) == 0
    assert [p.name for p in tmp_path.iterdir()] == [other.name]
    printed = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert printed == {
        "file": str(other),
        **read_prediction_metadata(other),
        "rows": pq.ParquetFile(other).metadata.num_rows,
    }


def test_a_failure_leaves_no_file(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prediction_file, "_table", fail)
    with pytest.raises(KeyboardInterrupt):
        ligr_jax.write_predictions(finished, tmp_path / "predictions.parquet")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rows", [8, 3])
def test_a_loaded_run_predicts_what_eval_measures(
    finished: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """Without its data, for any number of rows, compiled once for each shape."""
    evaluator, state = restore(finished)
    expected = evaluator.predict(state, "test")
    records, config = evaluator.records, evaluator.config
    plan = plan_for(records, config, "test")
    index, _, is_target = plan.gather(np.arange(rows))
    batch = Assembler(records, plan, config.model)(np.arange(rows))
    model = ligr_jax.load_run(finished)
    prediction = model.predict(batch)
    position = np.searchsorted(expected.impression, index[is_target])
    for a, action in enumerate(model.config.model.actions):
        logits = prediction.logits[action]
        assert logits.shape == (rows, 16)
        np.testing.assert_allclose(logits[is_target], expected.logits[position, a], rtol=1e-5)
        p = 1 / (1 + np.exp(-logits.astype(np.float64)))
        np.testing.assert_allclose(prediction.probabilities[action], p, rtol=1e-6)
    model.predict(batch)
    outside = batch._replace(ids={n: x + 10**6 for n, x in batch.ids.items()})
    with pytest.raises(BadInput, match=r"batch.ids\['.*'\]\[0, 0\] is \d+: the table has rows"):
        model.predict(outside)
    assert model._logits._cache_size() == 1
    assert (model.step, model.summary) == (40, load_summary(finished))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ligr_jax.LigrError, match="this is one of 2 processes"):
        model.predict(batch)


def test_a_padding_batch_is_that_of_the_pipeline(prepared: Path) -> None:
    for change in ([], ["model.features.item_id.lookup=qr", "model.features.item_id.rows=64"]):
        config = small_config(prepared, *change)
        records = Records(prepared)
        assembler = Assembler(records, plan_for(records, config, "train"), config.model)
        wanted, made = assembler(np.array([-1, -1])), padding_batch(config.model, 2, 16)
        assert jax.tree.structure(made) == jax.tree.structure(wanted)
        for x, y in zip(jax.tree.leaves(made), jax.tree.leaves(wanted)):
            assert (x.dtype, x.shape) == (y.dtype, y.shape)
            np.testing.assert_array_equal(x, y)


def test_fit_model_trains_as_the_command_does_and_continues(
    prepared: Path, finished: Path, tmp_path: Path, on_message: OnMessage
) -> None:
    signals = [signal.SIGTERM]

    def stop(line: str) -> None:
        if line.startswith("step") and signals:
            os.kill(os.getpid(), signals.pop())

    on_message(stop)
    with pytest.raises(SystemExit):
        ligr_jax.fit_model(SMALL, prepared, tmp_path / "run")
    model = ligr_jax.fit_model(SMALL, str(prepared), str(tmp_path / "run"))
    whole = load_summary(finished)
    assert whole is not None
    assert model.summary["validation/ne"] == whole["validation/ne"]
    assert (
        ligr_jax.fit_model(small_config(prepared), prepared, tmp_path / "run").summary
        == model.summary
    )
    with pytest.raises(ligr_jax.LigrError, match=r"model\.detph"):
        ligr_jax.fit_model(["model.detph=2"], prepared, tmp_path / "other")
