"""A run without a metric is left out by name and reason, and stops no fit, plan or report."""

import argparse
import json
from pathlib import Path

import pytest

from ligr_jax.commands import fit
from ligr_jax.data.schema import BadInput
from ligr_jax.runs.run_table import RunTable
from ligr_jax.runs.table import read_runs
from ligr_jax.scaling.plan.planner import _sound
from ligr_jax.scaling.plan.request import PlanRequest
from ligr_jax.scaling.report.study import study


def write_runs(directory: Path) -> None:
    """Six runs that follow a law, one that diverged, and one whose only action has no labels."""
    for k in range(8):
        compute = 10.0 ** (10 + k / 2)
        row = {"flops_model": compute, "validation/ne": 0.8 + compute**-0.05}
        row |= {"validation/view/auc": None, "validation/left_out": "view"}
        row |= {"config/model.actions": ["click", "view"], "config/model.width": 8 * 2**k}
        if k >= 6:
            row["validation/ne"] = None
        if k == 7:
            row["config/model.actions"] = ["view"]
        (directory / f"r{k}").mkdir(parents=True)
        (directory / f"r{k}" / "summary.json").write_text(json.dumps(row))


def fitted(*words: str) -> int:
    parser = argparse.ArgumentParser()
    fit.add_arguments(parser)
    return fit.run(parser.parse_args(list(words)))


def test_runs_without_a_metric_are_left_out_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], said: list[str]
) -> None:
    write_runs(tmp_path)
    assert fitted(str(tmp_path), "--bootstrap", "0") == 0
    assert "6 runs" in capsys.readouterr().out
    assert said == [
        "left out r6: validation/ne is not a finite number, it diverged",
        "left out r7: validation/ne is not a finite number, view has no positive or no negative "
        "labels in validation",
    ]
    with pytest.raises(BadInput, match="no finished runs with a finite validation/view/auc"):
        fitted(str(tmp_path), "--metric", "validation/view/auc")
    assert any("r0: validation/view/auc is not a finite number, view has no" in s for s in said)

    found = study(read_runs(tmp_path), resamples=0)
    assert found.diverged == ("r6",)
    assert len(found.table) == 6
    reason = "No validation/ne: view has no positive or no negative labels in validation: r7"
    assert reason in found.notes

    _, notes = _sound(RunTable(read_runs(tmp_path).table), PlanRequest(1e14))
    assert "left out (no validation/ne, it diverged): r6" in notes
    assert any("view has no positive or no negative labels in validation): r7" in n for n in notes)
