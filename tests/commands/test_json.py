"""`--json`: strict JSON alone on stdout, and an exit status that says what was measured."""

import argparse
import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import polars as pl
import pytest

from ligr_jax.cli import COMMANDS, main
from ligr_jax.sid.config import SidConfig
from ligr_jax.sid.model import SidModel
from tests.scaling import known_rule


@pytest.fixture(scope="module")
def place(prepared: Path, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands read, each with a number that is not finite where it can have one."""
    root = tmp_path_factory.mktemp("json")
    (root / "data").symlink_to(prepared)
    (root / "run").symlink_to(finished)
    shutil.copytree(prepared, root / "damaged")
    next((root / "damaged").glob("members-*")).write_bytes(b"")
    known_rule.ladder(root / "ladder")
    compute = np.geomspace(1e15, 1e18, 6)
    loss = 0.5 + (compute / 1e15) ** -0.1
    pl.DataFrame({"C": compute, "loss": loss}).write_csv(root / "runs.csv")
    width = 4
    arrays = {
        "codebooks": np.ones((2, 4, width), np.float32),
        "mean": np.zeros(width, np.float32),
        "scale": np.ones(width, np.float32),
    }
    (root / "sid").mkdir()
    SidModel(SidConfig(method="rqkmeans", levels=2, codes=4), width, "content", arrays).save(
        root / "sid"
    )
    columns = {"member_id": [1, 1, 2, 2], "item_id": [1, 2, 1, 2], "click": [0, 1, 1, 0]}
    times = [1_700_000_000_000 + 60_000 * k for k in range(4)]
    table = pl.DataFrame({**columns, "timestamp_ms": times, "age": [1.0, np.nan, np.nan, 2.0]})
    table.write_parquet(root / "log.parquet")
    return root


# By command: arguments, exit status, and whether the output holds what was asked, null for NaN.
CASES: dict[str, tuple[str, int, Callable[[Any], bool]]] = {
    "eval": (
        "run --split validation",
        0,
        lambda said: said["validation/ne"] > 0 and said["validation/click/ne"] is None,
    ),
    "fit": (
        "runs.csv --metric loss --axis C --bootstrap 0 --leave-out 1",
        0,
        lambda said: said["points"] == 6 and said["left_out"][0]["low"] is None,
    ),
    "plan": (
        "--runs ladder --flops 1e16 --bootstrap 0",
        0,
        lambda said: said["predicted"]["value"] > 0 and said["predicted"]["low"] is None,
    ),
    "status": (
        "run",
        0,
        lambda said: said["counts"]["finished"] == 1 and said["eta_s"] == 0,
    ),
    "predict": (
        "run --split validation --out predictions.parquet",
        0,
        lambda said: said["rows"] > 0 and said["file"] == "predictions.parquet",
    ),
    "prepare": (
        "log.parquet --out prepared --actions click --numeric age --fractions 0.5,0.25,0.25",
        0,
        lambda said: said["rows"] == 4,
    ),
    "sid inspect": ("sid data", 0, lambda said: said["tuples"] == 1),
    "sources": (
        "kuairand",
        0,
        lambda said: said["kuairand"]["protocols"]["kuairand-pure-time"]["session_gap"] == "6h",
    ),
    "verify": (
        "nothing damaged data",
        1,
        lambda said: [s["ok"] for s in said].count(False) == 2 and said[0]["kind"] == "path",
    ),
}


def test_every_command_with_json_is_tried() -> None:
    having = set()
    for name in COMMANDS:
        parser = argparse.ArgumentParser()
        importlib.import_module(f"ligr_jax.commands.{name}").add_arguments(parser)
        having |= {" ".join([name, *part]) for part in _parts_with_json(parser)}
    assert having == set(CASES) | {"check"}  # which `test_export` tries, with its artifact


def _parts_with_json(parser: argparse.ArgumentParser) -> list[tuple[str, ...]]:
    """The parts of a command that have --json; () for a command without parts."""
    found = list[tuple[str, ...]]()
    for action in parser._actions:
        if "--json" in action.option_strings:
            found.append(())
        if isinstance(action, argparse._SubParsersAction):
            for name, part in action.choices.items():
                found += [(name, *rest) for rest in _parts_with_json(part)]
    return found


def no_constant(word: str) -> NoReturn:
    raise AssertionError(f"{word} is not JSON")


@pytest.mark.parametrize("command", CASES)
def test_stdout_is_strict_json_and_nothing_else(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    import ligr_jax.train.evaluate

    measure = ligr_jax.train.evaluate.measure

    def one_without_labels(*args: Any) -> dict[str, Any]:
        return measure(*args) | {"validation/click/ne": float("nan")}

    monkeypatch.setattr(ligr_jax.train.evaluate, "measure", one_without_labels)
    monkeypatch.chdir(place)
    arguments, status, measured = CASES[command]
    capsys.readouterr()
    assert main([*command.split(), *arguments.split(), "--json"]) == status
    said = json.loads(capsys.readouterr().out, parse_constant=no_constant)
    assert measured(said), said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("eval run --split train --step 7", "no checkpoint 7"),
        (
            "fit runs.csv --metric loss --axis C --floor 0.1 --form line",
            "--floor 0.1 applies to --form power only",
        ),
        (
            "fit runs.csv --metric loss --axis C --unique loss",
            "--unique loss applies to --form chinchilla, repeated, overfitted only",
        ),
        ("fit runs.csv --metric loss --axis C --register x.json", "give the run to predict"),
        ("plan --runs ladder --flops 1e30", "decades beyond"),
        ("prepare log.parquet --out other --actions clik", "clik"),
        ("sid inspect data data", "no finished model"),
    ],
)
def test_what_was_not_measured_is_an_error_and_stdout_is_empty(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
    message: str,
) -> None:
    monkeypatch.chdir(place)
    assert main([*words.split(), "--json"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err
