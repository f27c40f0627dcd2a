"""The command line explains itself, and reports wrong input in one line."""

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
from ligr_jax.train.recorder import TrainingDiverged


def test_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in COMMANDS)
    assert main(["trian"]) == 2
    assert capsys.readouterr().err == (
        "ligr: no command 'trian'; did you mean train? `ligr --help` lists the commands\n"
    )
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("ligr 0.")


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
        ("preset=huge", "no preset 'huge'; there are demo-0"),
        ("preset=dmeo-4", "no preset 'dmeo-4'; nearest: demo-4"),
        ("lr=0.1", "unknown name 'lr'; nearest: optim.dense_lr, optim.table_lr"),
        ("optim.dense_lr=inf", "it must be finite"),
    ],
)
def test_bad_configurations_are_refused_before_a_run_directory_exists(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], assignment: str, words: str
) -> None:
    out = tmp_path / "run"
    assert main(["train", "--data", str(prepared), "--out", str(out), assignment]) == 1
    assert words in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("eval", "required: run\nexample: ligr eval runs/first --split test"),
        ("eval run --batch -3", "--batch: -3: give a whole number of at least 0"),
        ("eval run --step -1", "--step: -1: give a whole number"),
        ("sweep a.yaml --data p --out o --jobs 0", "--jobs: 0: give a whole number from 1 to"),
        ("sweep a.yaml --data p --out o --together 0", "--together: 0: give a whole number of at"),
        ("report runs --bootstrap -5", "--bootstrap: -5: give a whole number of at least 0"),
        ("fit runs --leave-out 0", "--leave-out: 0: give a whole number of at least 1"),
        ("world --out w --workers 0", "--workers: 0: give a whole number of at least 1"),
        ("world --out w --sessions nan", "--sessions: nan: give a number"),
        ("prepare log --out o --shard-rows 0", "--shard-rows: 0: give a whole number"),
        ("export run --out o --bits 7", "--bits: invalid choice: 7 (choose from 32, 8, 4)"),
        ("plan --runs r --flops inf", "--flops: inf: give a number"),
        ("plan --runs r --flops 1 --mfu 2", "--mfu: 2: give a share above 0 and up to 1"),
        ("plan --runs r --flops 1 --devices 1.5", "--devices: 1.5: give a whole number"),
        ("sid train s --out m --hidden 8,x", "--hidden: x: give a whole number"),
    ],
)
def test_wrong_arguments_are_refused_with_an_example(
    capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("report nope", "nope: no such sweep directory or table of runs"),
        ("world --out w --members 0", "world.members=0; give a whole number from 1"),
        ("sweep none.yaml --data p --out o", "cannot read none.yaml: no such file"),
        ("sweep {dir}/broken.yaml --data p --out o", "broken.yaml, line 2, column 12: not YAML"),
        (
            "sweep tiny/lader --data p --out o",
            "shipped sweep; did you mean tiny/ladder?",
        ),
        ("train --data p --together {dir}/latin.json", "latin.json: not UTF-8 at byte 2"),
    ],
)
def test_wrong_files_are_one_line(
    tmp_path: Path, prepared: Path, capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    (tmp_path / "broken.yaml").write_text("method: grid\nname: [a: b: c\n", encoding="utf-8")
    (tmp_path / "latin.json").write_bytes(b'["\xe9"]')
    given = words.format(dir=tmp_path).replace("--data p", f"--data {prepared}")
    assert main(given.split()) == 1
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1


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
