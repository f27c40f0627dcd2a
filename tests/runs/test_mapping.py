"""Run directories of another tool, read by a mapping file."""

import json
from pathlib import Path

import pytest

from ligr_jax.cli import main

MAPPING = """
files: ["*/config.json", "*/log.txt"]
format: jsonl
loss: eval/quality
compute: total_flos
n: model/params
epoch: epoch
"""


def write_tool(directory: Path) -> None:
    """Write six runs of a law as a trainer does: a configuration, and a log with several rows."""
    for k in range(6):
        compute = 10.0 ** (10 + k / 2)
        run = directory / f"run{k}"
        run.mkdir(parents=True)
        config = {"model": {"params": 8**k, "name": "x"}, "seed": 1}
        (run / "config.json").write_text(json.dumps(config, indent=1))
        rows = [
            {"epoch": 2, "total_flos": compute, "eval": {"quality": 0.8 + compute**-0.05}},
            {"epoch": 1, "total_flos": compute / 2, "eval": {"quality": 7.0}},
            {"epoch": 3, "total_flos": compute, "train_loss": 1.0},
        ]
        (run / "log.txt").write_text("\n".join(map(json.dumps, rows)))


def test_the_last_mark_of_each_run_is_fitted_and_damaged_runs_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tool(tmp_path / "tool")
    broken = tmp_path / "tool" / "run9"
    broken.mkdir()
    (broken / "config.json").write_text('{"seed": 1}')
    (broken / "log.txt").write_text('{"epoch": 1')
    mapping = tmp_path / "map.yaml"
    mapping.write_text(MAPPING)
    words = ["fit", str(tmp_path / "tool"), "--mapping", str(mapping), "--bootstrap", "0"]
    assert main([*words, "--json"]) == 0
    out, messages = capsys.readouterr()
    law = json.loads(out)
    assert law["runs"] == [f"run{k}" for k in range(6)]
    assert law["params"]["E"] == pytest.approx(0.8, abs=1e-3)
    assert law["params"]["alpha"] == pytest.approx(0.05, rel=0.01)
    assert f"left out run9: {broken / 'log.txt'}, line 1: " in messages
    # All marks, or a name from the files.
    mapping.write_text(MAPPING + "rows: all\nrun: model/name\n")
    assert main([*words, "--json", "--group", "run"]) == 0
    law = json.loads(capsys.readouterr().out)
    assert law["runs"] == ["x"] * 12


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("files: ['*/nothing.csv']\nloss: x", "no file matches ['*/nothing.csv']"),
        ("files: '*/log.txt'\nformat: jsonl\nloss: val_loss", "run0: no key 'val_loss'; its keys"),
        ("files: '*/log.txt'\nloss: val_loss", "run0/log.txt: read runs from"),
        ("files: '*/log.txt'\nformat: xml\nloss: x", "`format` one of csv"),
        ("files: '*/log.txt'\nformat: jsonl", "`loss` (less is better) or `metric`"),
        ("files: '*/log.txt'\nlos: x", "['los'] is not a mapping of the keys files"),
        ("loss: x", "give `files`"),
        ("{", "not a readable YAML file"),
    ],
)
def test_a_mapping_that_does_not_fit_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    write_tool(tmp_path / "tool")
    (tmp_path / "map.yaml").write_text(text)
    words = ["fit", str(tmp_path / "tool"), "--mapping", str(tmp_path / "map.yaml")]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "map.yaml" in error
