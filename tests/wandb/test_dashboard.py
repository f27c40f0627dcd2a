"""The dashboard: its panels name what runs really log; the report's fits arrive."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from ligr_jax.scaling.fit import fit_power
from tests.train.runs import SMALL
from tests.wandb.server import ENTITY, PROJECT, Run, WandbServer


@pytest.fixture
def sweep(run: Run, prepared: Path, tmp_path: Path) -> Path:
    """Two tiny runs that the server has, and a report with one law and one figure."""
    directory = tmp_path / "tiny"
    for depth in (1, 2):
        assignments = [*SMALL, f"model.depth={depth}", "train.steps=10", "track.wandb=online"]
        assignments += ["eval.cold_below=1000"]  # all are
        out = directory / f"depth{depth}"
        run("-m", "ligr_jax", "train", "--data", prepared, "--out", out, *assignments)
    compute = np.geomspace(1e9, 1e12, 6)
    law = fit_power(compute, 0.5 + 30 * compute**-0.2, resamples=0)
    fits = {"lines": ["a line"], "laws": {"flops_model": {"free": law.to_json()}}}
    (directory / "fit.json").write_text(json.dumps(fits))
    (directory / "figures").mkdir()
    Figure((1, 1)).savefig(directory / "figures" / "auc.png")
    return directory


def test_panels_name_what_runs_log_and_fits_arrive(
    sweep: Path, run: Run, server: WandbServer
) -> None:
    trained = list(server.runs.values())
    words = ["dashboard", "--entity", ENTITY, "--project", PROJECT, "--runs", sweep]
    said = run("-m", "ligr_jax", *words).stdout
    assert f"workspace: {server.url}/{ENTITY}/{PROJECT}?nw=" in said
    (view,) = server.views
    panels = list(_panels(json.loads(view["spec"])))

    report = server.runs["report-tiny"]
    assert report.fields["jobType"] == "report"
    in_summary = set.intersection(*(set(r.summary) for r in trained))
    in_history = set.intersection(*({k for row in r.history for k in row} for r in trained))
    summaries = {name for p in panels for name in _after_colon(p)}
    curves = {p["xAxis"] for p in panels if "metrics" in p}
    curves |= {m for p in panels for m in p.get("metrics", [])}
    assert summaries <= in_summary
    assert curves <= in_history
    assert {m for p in panels for m in p.get("mediaKeys", [])} == {"figures/auc"}
    assert {"figures/auc", "laws"} <= set(report.summary)
    # What the sweep varied, its actions and their cold-start slices are among them.
    assert {"config/model.depth", "validation/ne", "validation/click/auc"} <= summaries
    assert {n.split("/")[2] for n in summaries if n.count("/") == 3} == {
        "cold_items",
        "cold_members",
    }
    assert [p["targetKey"] for p in panels if "targetKey" in p] == ["validation/ne"]

    (table,) = (json.loads(b) for n, b in report.files.items() if n.endswith(".table.json"))
    rows = {row[3]: row for row in table["data"]}
    assert rows["alpha"][:3] == ["laws/flops_model/free", "power", 6]
    assert rows["alpha"][4] == pytest.approx(0.2, rel=1e-3)
    assert any(n.startswith("media/images/figures/auc") for n in report.files)


def _panels(node: Any) -> Iterator[dict[str, Any]]:
    """Configurations of all panels of a view."""
    for section in node["section"]["panelBankConfig"]["sections"]:
        yield from (panel["config"] for panel in section["panels"])


def _after_colon(node: Any) -> Iterator[str]:
    """Summary keys named anywhere in a panel."""
    if isinstance(node, str) and node.startswith("summary:"):
        yield node.removeprefix("summary:")
    elif isinstance(node, dict):
        yield from _after_colon(list(node.values()))
    elif isinstance(node, list):
        for child in node:
            yield from _after_colon(child)


def test_without_a_key_the_workspace_is_a_file(
    run: Run, server: WandbServer, tmp_path: Path
) -> None:
    words = ["dashboard", "--entity", "me", "--project", "p"]
    said = run("-m", "ligr_jax", *words, WANDB_API_KEY="").stdout
    assert "wandb login" in said
    view = json.loads((tmp_path / "home" / "dashboard.json").read_text())
    assert view["entity"] == "me"
    assert list(_panels(view["spec"]))
    run("-m", "ligr_jax", *words, "--out", tmp_path / "deep" / "view.json")
    assert (tmp_path / "deep" / "view.json").exists()
    assert server.views == []


def test_what_is_missing_is_named(run: Run, tmp_path: Path) -> None:
    words = ["dashboard", "--entity", "me", "--project", "p"]
    (tmp_path / "wandb_workspaces.py").write_text("raise ModuleNotFoundError(name=__name__)")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    said = run("-m", "ligr_jax", *words, status=1, PYTHONPATH=path).stderr
    assert "no module wandb_workspaces: pip install 'ligr-jax[dashboard]'" in said
