"""`ligr export`: what a run learned is what is served."""

from pathlib import Path

import numpy as np
import pytest

from ligr_jax.cli import main
from ligr_jax.config import digest
from ligr_jax.ops.quantization import dequantize, quantize
from ligr_jax.tables.exported import ExportedTable
from ligr_jax.tables.zarr import load_index
from ligr_jax.train.evaluate import restore
from ligr_jax.train.loop import train
from ligr_jax.train.optimizer import split_tables
from tests.train.runs import small_config


@pytest.fixture(scope="module")
def trained(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    train(small_config(prepared, "train.steps=2"), run)
    return run


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


def test_a_finished_export_is_kept_and_a_run_is_needed(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", str(trained), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    assert main(command) == 1
    assert "finished export" in capsys.readouterr().err
    assert main([*command, "--bits", "8", "--overwrite"]) == 0
    assert load_index(tmp_path / "out")["tables"]["item_id"]["bits"] == 8
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "other")]) == 1
    assert "is not a run directory" in capsys.readouterr().err
