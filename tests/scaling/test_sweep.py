"""Sweeps: shipped files are valid for W&B and for us; a sweep runs, skips, fails and reports."""

import importlib.util
import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from ligr_jax.cli import main
from ligr_jax.config import ConfigError
from ligr_jax.scaling.ladder import PRESETS
from ligr_jax.scaling.runs import read_runs
from ligr_jax.scaling.sweep import plan_points, read_sweep, run_sweep
from tests.train.runs import SMALL

SWEEPS = sorted((Path(__file__).parents[2] / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda p: p.stem)
def test_shipped_files_fit_the_schema_of_wandb(path: Path) -> None:
    package = importlib.util.find_spec("sweeps")
    assert package is not None
    assert package.origin is not None
    schema = json.loads((Path(package.origin).parent / "config" / "schema.json").read_text())
    sweep = yaml.safe_load(path.read_text())
    jsonschema.validate(sweep, schema)
    _, points = read_sweep(path)
    assert points


def test_the_demo_climbs_the_ladder() -> None:
    _, points = read_sweep(Path(__file__).parents[2] / "sweeps" / "demo.yaml")
    assert [p[0].removeprefix("preset=") for p in points] == list(PRESETS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not YAML"),
        ("name: x", "needs `parameters`"),
        ("method: bayes\nparameters: {a: {value: 1}}", "method=bayes"),
        ("method: grid\nparameters: {a: {min: 1}}", "parameter a needs"),
    ],
)
def test_bad_sweep_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_sweep(tmp_path / "s.yaml")


def test_a_bad_point_fails_before_the_first_one_starts(prepared: Path) -> None:
    with pytest.raises(ConfigError, match=r"point model\.width=31"):
        plan_points([("model.width=32",), ("model.width=31",)], prepared)


def test_a_sweep_from_points_to_page(
    prepared: Path,
    tmp_path: Path,
    child_env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two points, one of which diverges: the other is finished, drawn, and not trained again."""
    monkeypatch.setattr("os.environ", child_env)
    short = [*SMALL, "train.steps=10", "train.max_bad_steps=2"]
    grid = [("optim.dense_lr=1e-3",), ("optim.dense_lr=1e30",)]
    points = plan_points(grid, prepared, short)
    said: list[str] = []
    assert run_sweep(points, prepared, tmp_path, jobs=2, say=said.append) is False
    good, bad = (next(p for p in points if f"={lr}" in p.assignments[0]) for lr in ("1e-3", "1e30"))
    assert any(line.startswith(f"failed: {bad.name}: ") for line in said)
    assert "steps in a row" in (tmp_path / bad.name / "error.txt").read_text()
    runs = read_runs(tmp_path)
    assert runs.table["run"].to_list() == [good.name]
    counted = json.loads((tmp_path / good.name / "summary.json").read_text())["flops_model"]
    assert good.cost.flops == pytest.approx(counted, rel=0.2)  # the estimate is from a sample
    again: list[str] = []
    assert run_sweep([good], prepared, tmp_path, jobs=1, say=again.append) is True
    assert any("finished before" in line for line in again)
    assert main(["report", str(tmp_path)]) == 0
    assert "report.html" in capsys.readouterr().out
    assert good.name in (tmp_path / "report.html").read_text()
