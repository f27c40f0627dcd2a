"""`ligr export` and `ligr check`: what a run learned is what is served."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ligr_jax.cli import main
from ligr_jax.config import digest
from ligr_jax.ops.quantization import dequantize, quantize
from ligr_jax.tables.exported import ExportedTable
from ligr_jax.tables.versions import listed_versions
from ligr_jax.tables.zarr import load_index
from ligr_jax.train.evaluate import restore
from ligr_jax.train.loop import train
from ligr_jax.train.optimizer import split_tables
from tests.train.runs import small_config

pytestmark = pytest.mark.slow

SMALL = ("--candidates", "16")  # one size of arrays


@pytest.fixture(scope="module")
def trained(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    train(small_config(prepared, "train.steps=2"), run)
    return run


@pytest.fixture
def tables_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports have no functions, and golden requests are not scored."""
    monkeypatch.setattr("ligr_jax.serve.write.lower_operations", lambda *_: ())
    golden: dict[str, Any] = {"requests": 0, "difference_from_model": {"pointwise": 0.0}}
    monkeypatch.setattr("ligr_jax.serve.write._write_golden", lambda *_: golden)


@pytest.mark.usefixtures("tables_only")
@pytest.mark.parametrize("bits", [32, 8, 4])
def test_the_tables_of_the_newest_checkpoint_are_exported(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], bits: int
) -> None:
    out = tmp_path / "out"
    assert main(["export", str(trained), "--out", str(out), "--bits", str(bits)]) == 0
    said = capsys.readouterr().out
    evaluator, state = restore(trained)
    learned = split_tables(state.params)[1]
    assert learned
    for name, array in learned.items():
        table = np.asarray(array)
        wanted = table if bits == 32 else dequantize(quantize(table, bits))
        read = ExportedTable.open(out, name).rows(range(len(table)))
        np.testing.assert_array_equal(read, wanted)
        (line,) = (line for line in said.splitlines() if line.startswith(f"{name} "))
        assert f"{len(table):,}" in line
    index = load_index(out)
    assert index["tables"].keys() == learned.keys()
    assert index["run"]["step"] == 2
    assert index["run"]["digest"] == digest(
        small_config(evaluator.records.directory, "train.steps=2")
    )


@pytest.mark.usefixtures("tables_only")
@pytest.mark.parametrize("placement", ["column_wise", "row_wise", "table_wise"])
def test_an_export_is_the_same_from_any_mesh(trained: Path, tmp_path: Path, placement: str) -> None:
    """Tables padded and cut to lie on it are written as they are."""
    mesh = ["mesh.data=1", "mesh.model=8", f"mesh.placement={placement}"]
    for name, chosen in (("one", ["mesh.data=1"]), ("cut", mesh)):
        assert main(["export", str(trained), "--out", str(tmp_path / name), *chosen]) == 0
    index = load_index(tmp_path / "one")
    for table, about in index["tables"].items():
        one, cut = (
            ExportedTable.open(tmp_path / d, table).rows(range(about["rows"]))
            for d in ("one", "cut")
        )
        np.testing.assert_array_equal(one, cut)
    assert main(["export", str(trained), "--out", str(tmp_path / "x"), "model.depth=2"]) == 1


def test_exports_are_versions_that_check_accepts(
    trained: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["export", str(trained), "--out", str(out), *SMALL, "mesh.model=4"]
    assert main(command) == 0
    (first,) = listed_versions(out)
    assert "golden requests: largest difference from the model 0" in capsys.readouterr().out
    actions = restore(trained)[0].config.model.actions
    weights = f"{actions[0]}=1,{actions[1]}=5"
    assert main([*command, "--bits", "8", "--set-top", "3", "--weights", weights]) == 0
    said = capsys.readouterr().out
    assert "8 bits move a logit of these requests by up to" in said
    second, former = listed_versions(out)
    assert former == first
    assert second.startswith("00000002-")
    assert load_index(out)["tables"]["item_id"]["bits"] == 8

    assert main(["check", str(out), "--json", "--data", str(prepared)]) == 0
    checked = json.loads(capsys.readouterr().out)
    assert checked["version"] == second
    assert set(checked["differences"].values()) == {0.0}
    assert checked["metrics"]["test/impressions"] > 0
    assert main(["check", str(out), "--version", first]) == 0
    assert "4 golden requests are equal bit by bit" in capsys.readouterr().out
    assert main(["verify", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.count("ok      version") == 2

    # Back to the first version, and again to the second.
    for version in (first, second):
        assert main(["check", str(out), "--version", version, "--make-current"]) == 0
        assert listed_versions(out)[0] == version

    # Damage in the current version: both commands name it.
    params = out / "versions" / second / "params.npz"
    os.truncate(params, params.stat().st_size - 1)
    assert main(["check", str(out)]) == 1
    assert f"{params} is damaged" in capsys.readouterr().err
    assert main(["verify", str(out)]) == 1
    assert f"{params} is damaged" in capsys.readouterr().out
    assert main(["check", str(out), "--version", "x"]) == 1
    assert "no version 'x'" in capsys.readouterr().err


def test_what_cannot_be_exported_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", str(trained), "--out", str(tmp_path / "out")]
    assert main([*command, "--weights", "smile=1"]) == 2
    assert "the run has no action 'smile'; it has" in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis").touch()
    assert main(command) == 1
    assert "holds other files (thesis)" in capsys.readouterr().err
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "other")]) == 1
    assert "is not a run directory" in capsys.readouterr().err
    assert main(["check", str(trained)]) == 1
    assert "is not an artifact" in capsys.readouterr().err
