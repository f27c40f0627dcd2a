"""The dashboard's panels refer to metrics that runs log, and the server gets the report's fits."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure

from ligr_jax.runs.rows import read_rows
from ligr_jax.scaling.fit import fit_power
from tests.train.runs import SMALL
from tests.wandb.server import ENTITY, PROJECT, Run, WandbServer

pytestmark = pytest.mark.slow

FORECAST = ("architecture", "how", "run", "compute", "predicted", "low", "high", "observed")


@pytest.fixture
def sweep(run: Run, prepared: Path, tmp_path: Path) -> Path:
    """A sweep of three tiny runs, which the server has, and a report with one law and one figure.

    Two points train together and one alone, with variables that would identify a single run.
    """
    directory = tmp_path / "tiny"
    settings = dict(a.split("=") for a in SMALL if not a.startswith("track."))
    settings |= {"train.steps": "2", "train.log_every": "1", "eval.splits": "validation"}
    settings |= {"model.features": "item_id,surface", "model.set_depth": "0"}
    settings |= {"eval.cold_below": "1000"}  # so that all are cold
    files = []
    for name, varied in (
        ("seeds", {"train.seed": {"values": [0, 1]}}),
        ("deep", {"model.depth": {"value": 2}}),
    ):
        parameters = {k: {"value": yaml.safe_load(v)} for k, v in settings.items()} | varied
        content = {"program": "ligr", "method": "grid", "parameters": parameters}
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(yaml.safe_dump(content))
    words = ["sweep", *files, "--data", prepared, "--out", directory, "--together", 2, "--jobs", 2]
    run("-m", "ligr_jax", *words, WANDB_NAME="mine", WANDB_RUN_ID="mine")
    compute = np.geomspace(1e9, 1e12, 6)
    law = fit_power(compute, 0.5 + 30 * compute**-0.2, resamples=0)
    forecast = dict(zip(FORECAST, ["", "how", "r", 1e13, 0.8, 0.7, 0.9, 0.81], strict=True))
    fits = {"lines": ["a line"], "laws": {"flops_model": {"": {"free": law.to_json()}}}}
    fits |= {"forecasts": [forecast | {"error": -0.01}]}
    (directory / "runs.csv").write_text("run,flops_model\na,1e9\nb,1e12\n")
    (directory / "fit.json").write_text(json.dumps(fits))
    (directory / "figures").mkdir()
    Figure((1, 1)).savefig(directory / "figures" / "auc.png")
    return directory


def test_runs_of_a_sweep_have_their_own_names_and_panels_name_what_they_log(
    sweep: Path, run: Run, server: WandbServer
) -> None:
    directories = {path.parent for path in sweep.glob("*/summary.json")}
    assert len(directories) == 3
    assert "mine" not in server.runs
    stored = {
        name.partition("-")[0]: r for name, r in server.runs.items()
    }  # ids begin with digests
    assert stored.keys() == {directory.name for directory in directories}
    shown = {
        (f["displayName"][:-7], f["groupName"][:-7]) for f in (r.fields for r in stored.values())
    }
    seeds = {(f"seeds T32 L1 D8 s{seed}", "seeds T32 L1 D8") for seed in (0, 1)}
    assert shown == {*seeds, ("deep T32 L2 D8 s0", "deep T32 L2 D8")}
    assert len({r.fields["groupName"] for r in stored.values()}) == 2
    for path in directories:
        run_of = stored[path.name]
        assert run_of.fields["displayName"].endswith(f"({path.name[:4]})")
        assert run_of.fields["jobType"] == "train"
        about = run_of.config["about"]
        assert run_of.fields["tags"] == [about["sweep"], "ligr"]
        assert about["devices"] == 2
        assert about["processes"] == 1
        assert about["jax"] == jax.__version__
        assert not any(k.startswith("config/") for k in run_of.summary)
        final, last = run_of.summary, run_of.history[-1]  # the evaluation at the end
        assert last["validation/ne"] == final["validation/ne"]
        for axis in ("flops_model", "tokens", "device_seconds"):
            assert last[f"compute/{axis}"] == final[f"compute/{axis}"] > 0
            assert axis not in final
        mirrored = [r["step"] for r in stored[path.name].history]
        assert mirrored == [r["step"] for r in read_rows(path / "metrics.jsonl")]

    trained = list(server.runs.values())
    words = ["dashboard", "--entity", ENTITY, "--project", PROJECT, "--runs", sweep]
    # WANDB_MODE is for runs; an upload that the user starts is online.
    printed = run("-m", "ligr_jax", *words, WANDB_MODE="offline").stdout
    assert f"workspace: {server.url}/{ENTITY}/{PROJECT}?nw=" in printed
    (view,) = server.views
    panels = list(_panels(json.loads(view["spec"])))

    report = server.runs["report-tiny"]
    assert report.fields["jobType"] == "report"
    in_summary = set.intersection(*(set(r.summary) for r in trained))
    in_history = set.intersection(*({k for row in r.history for k in row} for r in trained))
    in_config = {
        f"{group}.{name}" for group in ("model", "data") for name in trained[0].config[group]
    }
    summaries = {name for p in panels for name in _after_colon(p, "summary")}
    configs = {name for p in panels for name in _after_colon(p, "config")}
    curves = {p["xAxis"] for p in panels if "metrics" in p}
    curves |= {m for p in panels for m in p.get("metrics", [])}
    assert summaries <= in_summary
    assert configs <= in_config
    assert curves <= in_history | {"law/ne"}
    (grouping,) = json.loads(view["spec"])["section"]["runSets"][0]["grouping"]
    assert (grouping["section"], grouping["name"]) == ("run", "group")
    assert {m for p in panels for m in p.get("mediaKeys", [])} == {"figures/auc"}
    assert {"figures/auc", "laws"} <= set(report.summary)
    # They include the swept parameter, the actions and the cold-start slices.
    assert {"validation/ne", "validation/click/auc", "compute/flops_model"} <= summaries
    assert {"throughput/mfu", "throughput/input_wait", "params/dense"} <= summaries
    assert "model.depth" in configs
    assert {n.split("/")[2] for n in summaries if n.count("/") == 3} == {
        "cold_items",
        "cold_members",
    }
    assert [p["targetKey"] for p in panels if "targetKey" in p] == ["validation/ne"]

    tables = [json.loads(b) for n, b in report.files.items() if n.endswith(".table.json")]
    by_first = {table["columns"][0]: table["data"] for table in tables}
    assert by_first["architecture"] == [["", "how", "r", 1e13, 0.8, 0.7, 0.9, 0.81]]
    rows = {row[3]: row for row in by_first["law"]}
    assert rows["alpha"][:3] == ["laws/flops_model//free", "power", 6]
    assert rows["alpha"][4] == pytest.approx(0.2, rel=1e-3)
    assert any(n.startswith("media/images/figures/auc") for n in report.files)
    # Panels draw the law with the evaluations of the runs.
    curve = [row for row in report.history if "law/ne" in row]
    for row in curve:
        assert row["law/ne"] == pytest.approx(
            0.5 + 30 * row["compute/flops_model"] ** -0.2, rel=1e-3
        )
    assert [curve[k]["compute/flops_model"] for k in (0, -1)] == pytest.approx([1e9, 1e13])
    (kept,) = (a for a in server.artifacts.values() if a.type == "report")
    assert kept.is_committed
    assert {"fit.json", "runs.csv"} <= kept.files.keys()
    assert json.loads(kept.files["fit.json"])["lines"] == ["a line"]


def _panels(node: Any) -> Iterator[dict[str, Any]]:
    """Yield the configurations of all panels of a view."""
    for section in node["section"]["panelBankConfig"]["sections"]:
        yield from (panel["config"] for panel in section["panels"])


def _after_colon(node: Any, section: str) -> Iterator[str]:
    """Yield the keys of summaries or configurations that occur anywhere in a panel."""
    if isinstance(node, str) and node.startswith(f"{section}:"):
        yield node.removeprefix(f"{section}:").replace(".value.", ".")
    elif isinstance(node, dict):
        yield from _after_colon(list(node.values()), section)
    elif isinstance(node, list):
        for child in node:
            yield from _after_colon(child, section)


def test_the_workspace_is_written_to_a_file(run: Run, server: WandbServer, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "view.json"
    words = ["dashboard", "--entity", "me", "--project", "p", "--out", out]
    run("-m", "ligr_jax", *words, WANDB_API_KEY="")
    view = json.loads(out.read_text())
    assert view["entity"] == "me"
    assert list(_panels(view["spec"]))
    assert server.views == []


# What the server refuses -> its answer, and words of the message.
REFUSALS: dict[str, tuple[tuple[int, bytes] | str, str]] = {
    "UpsertBucket": ("entity someteam not found", "take the report: .*entity someteam not found"),
    "file_stream": ((403, b"no"), "take the report: .*403 Forbidden"),
    "CreateArtifact": ("quota", "take the report: sender: failed to log artifact: .*quota"),
    "storage": ((403, b"no"), "take the report: file transfer: .*403 Forbidden"),
    "UpsertView2": ((500, b"no"), "take the workspace: .*giving up after 3 attempt"),
    "key": ("", "there is no key for the W&B server .*: run `wandb login`"),
    "address": ("", "the W&B server http://127.0.0.1:9 does not answer: check WANDB_BASE_URL"),
}


@pytest.mark.parametrize("refused", REFUSALS)
def test_a_server_that_refuses_is_one_line_and_a_failure(
    refused: str, run: Run, server: WandbServer, finished: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(finished, runs / "one")
    (runs / "fit.json").write_text('{"lines": ["a line"]}')
    answer, words = REFUSALS[refused]
    changes = {"key": {"WANDB_API_KEY": ""}, "address": {"WANDB_BASE_URL": "http://127.0.0.1:9"}}
    if refused not in changes:
        server.faults[refused] = answer
    command = ["dashboard", "--entity", ENTITY, "--project", PROJECT, "--runs", runs]
    done = run("-m", "ligr_jax", *command, status=1, **changes.get(refused, {}))
    (line,) = done.stderr.splitlines()
    assert line.startswith("ligr dashboard: ")
    assert re.search(words, line)
    assert "--out FILE" in line
    assert server.views == []


def test_a_missing_module_is_named(run: Run, tmp_path: Path) -> None:
    words = ["dashboard", "--entity", "me", "--project", "p"]
    (tmp_path / "wandb_workspaces.py").write_text("raise ModuleNotFoundError(name=__name__)")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = run("-m", "ligr_jax", *words, status=1, PYTHONPATH=path)
    assert "no module wandb_workspaces: pip install 'ligr-jax[dashboard]'" in done.stderr
