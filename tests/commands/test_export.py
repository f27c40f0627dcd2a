"""`ligr export` and `ligr check`: what a run learned is what is served."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from ligr_jax.cli import main
from ligr_jax.config import digest
from ligr_jax.ops.quantization import dequantize, quantize
from ligr_jax.tables.exported import ExportedTable
from ligr_jax.tables.versions import listed_versions
from ligr_jax.tables.zarr import load_index
from ligr_jax.train.evaluate import restore
from ligr_jax.train.optimizer import split_tables

pytestmark = pytest.mark.slow


@pytest.mark.usefixtures("tables_only")
@pytest.mark.parametrize("bits", [32, 8, 4])
def test_the_tables_of_the_newest_checkpoint_are_exported(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], bits: int
) -> None:
    out = tmp_path / "out"
    assert main(["export", str(finished), "--out", str(out), "--bits", str(bits)]) == 0
    said = capsys.readouterr().out
    evaluator, state = restore(finished)
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
    assert index["run"]["step"] == 40
    assert index["run"]["digest"] == digest(evaluator.config)


@pytest.mark.usefixtures("tables_only")
@pytest.mark.parametrize("placement", ["column_wise", "row_wise", "table_wise"])
def test_an_export_is_the_same_from_any_mesh(
    finished: Path, artifact_of_finished: Path, tmp_path: Path, placement: str
) -> None:
    """Tables padded and cut to lie on eight devices are written as those of one device."""
    mesh = ["mesh.data=1", "mesh.model=8", f"mesh.placement={placement}"]
    assert main(["export", str(finished), "--out", str(tmp_path), *mesh]) == 0
    for table, about in load_index(artifact_of_finished)["tables"].items():
        one, cut = (
            ExportedTable.open(directory, table).rows(range(about["rows"]))
            for directory in (artifact_of_finished, tmp_path)
        )
        np.testing.assert_array_equal(one, cut)


def test_exports_are_versions_that_check_accepts(
    finished: Path,
    artifact_of_finished: Path,
    prepared: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The first version was exported on one device, the second on the mesh of a table."""
    out = tmp_path / "out"
    shutil.copytree(artifact_of_finished, out)
    (first,) = listed_versions(out)
    actions = restore(finished)[0].config.model.actions
    weights = f"{actions[0]}=1,{actions[1]}=5"
    command = ["export", str(finished), "--out", str(out), "--candidates", "16", "mesh.model=4"]
    assert main([*command, "--bits", "8", "--set-top", "3", "--weights", weights]) == 0
    said = capsys.readouterr().out
    assert "golden requests: largest difference from the model 0" in said
    assert "8 bits move a logit of these requests by up to" in said
    second, former = listed_versions(out)
    assert former == first
    assert second.startswith("00000040-")
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
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", str(finished), "--out", str(tmp_path / "out")]
    assert main([*command, "model.depth=2"]) == 1
    assert "only mesh.* of a trained run can be changed" in capsys.readouterr().err
    assert main([*command, "--weights", "smile=1"]) == 2
    assert "the run has no action 'smile'; it has" in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis").touch()
    assert main(command) == 1
    assert "holds other files (thesis)" in capsys.readouterr().err
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "other")]) == 1
    assert "is not a run directory" in capsys.readouterr().err
    assert main(["check", str(finished)]) == 1
    assert "is not an artifact" in capsys.readouterr().err
