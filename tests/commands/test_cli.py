"""The command line teaches, and refuses in words."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from ligr_jax.cli import COMMANDS, main
from ligr_jax.config import ConfigError
from ligr_jax.data.schema import BadInput
from ligr_jax.errors import LigrError
from ligr_jax.exit_status import BUSY
from ligr_jax.lock import Busy
from ligr_jax.tables.zarr import DamagedTable, ExportError
from ligr_jax.train.record import TrainingDiverged


def test_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in COMMANDS)
    assert main(["trian"]) == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert "examples:" in said
    assert f"  ligr {command} " in said


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("model.detph=3", "nearest: model.depth"),
        ("model.depth=deep", "expected a whole number"),
        ("model.width=65", "not divisible by model.heads"),
        ("data.seq_len=33", "must be even"),
        ("model.features.item_id.kind=vector", "width"),
        ("preset=huge", "no preset 'huge'"),
    ],
)
def test_bad_configurations_are_refused_before_a_run_directory_exists(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], assignment: str, words: str
) -> None:
    out = tmp_path / "run"
    assert main(["train", "--data", str(prepared), "--out", str(out), assignment]) == 1
    assert words in capsys.readouterr().err
    assert not out.exists()


def test_data_that_is_not_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--data", str(tmp_path), "--out", str(tmp_path / "run")]) == 1
    assert "ligr prepare" in capsys.readouterr().err


@pytest.mark.parametrize("bug", [ValueError("shapes"), KeyError("x"), OSError("no file")])
def test_a_bug_shows_its_traceback(monkeypatch: pytest.MonkeyPatch, bug: Exception) -> None:
    def run(args: argparse.Namespace) -> int:
        raise bug

    monkeypatch.setattr("ligr_jax.commands.report.run", run)
    with pytest.raises(type(bug)):
        main(["report", "runs"])


def test_an_error_of_the_user_is_one_line_with_its_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: argparse.Namespace) -> int:
        raise Busy("runs/first: another process is training this run")

    monkeypatch.setattr("ligr_jax.commands.report.run", run)
    assert main(["report", "runs"]) == BUSY
    said = capsys.readouterr().err
    assert said == "ligr report: runs/first: another process is training this run\n"


def test_all_errors_of_the_package_share_one_base() -> None:
    for kind in (BadInput, ConfigError, ExportError, DamagedTable, Busy, TrainingDiverged):
        assert issubclass(kind, LigrError)
        assert issubclass(kind, ValueError | RuntimeError)  # handlers of earlier releases


def test_importing_the_package_starts_nothing() -> None:
    code = "import ligr_jax, sys; print([m for m in ('jax', 'numpy', 'wandb') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
