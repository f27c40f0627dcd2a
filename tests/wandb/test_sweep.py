"""Sweeps with W&B on loopback: `wandb sweep` and `wandb agent`, and `ligr sweep`."""

import os
import re
import sys
from pathlib import Path

import yaml

from ligr_jax.runs.rows import read_rows
from tests.train.runs import SMALL
from tests.wandb.server import Run, WandbServer

ROOT = Path(__file__).parents[2]
# A `ligr` that sends SIGTERM to the first run after its first row.
LIGR = """#!{python}
import subprocess, sys, time
from pathlib import Path
child = subprocess.Popen([sys.executable, "-m", "ligr_jax", *sys.argv[1:]])
runs = Path(sys.argv[sys.argv.index("--runs") + 1])
if not (runs / "stopped").exists():
    runs.mkdir(exist_ok=True)
    (runs / "stopped").touch()
    while child.poll() is None and not any(f.stat().st_size for f in runs.glob("*/metrics.jsonl")):
        time.sleep(0.02)
    child.terminate()
sys.exit(child.wait())
"""


def test_an_agent_runs_a_sweep_and_resumes_a_preempted_run(
    server: WandbServer, run: Run, prepared: Path, tmp_path: Path
) -> None:
    (shipped, *_) = sorted((ROOT / "sweeps").rglob("*.yaml"))
    sweep = yaml.safe_load(shipped.read_text())
    settings = dict(a.split("=") for a in SMALL if not a.startswith("track."))
    settings |= {"train.steps": "300", "train.checkpoint_every": "100"}
    sweep["parameters"] = {k: {"value": yaml.safe_load(v)} for k, v in settings.items()}
    sweep["parameters"]["model.depth"] = {"values": [1, 2]}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    done = run("-m", "wandb", "sweep", tmp_path / "sweep.yaml")
    registered = re.search(r"wandb agent (\S+)", done.stdout + done.stderr)
    assert registered

    (tmp_path / "bin").mkdir()
    ligr = tmp_path / "bin" / "ligr"
    ligr.write_text(LIGR.format(python=sys.executable))
    ligr.chmod(0o755)
    runs = tmp_path / "runs"
    places = {"LIGR_DATA": str(prepared), "LIGR_RUNS": str(runs)}
    path = f"{ligr.parent}{os.pathsep}{os.environ['PATH']}"
    run("-m", "wandb", "agent", registered[1], PATH=path, **places)

    assert len(server.runs) == 2
    stored = {r.config["model.depth"]: r for r in server.runs.values()}
    assert set(stored) == {1, 2}
    assert stored[1].preempting
    for metrics in runs.glob("*/metrics.jsonl"):
        rows = read_rows(metrics)
        (mirror,) = (r for r in stored.values() if r.fields["displayName"] == metrics.parent.name)
        assert mirror.exit_code == 0
        assert mirror.fields["sweep"] == registered[1].split("/")[-1]
        assert [r["step"] for r in mirror.history] == [r["step"] for r in rows]
        assert [r.get("train/loss") for r in mirror.history] == [r.get("train/loss") for r in rows]
        # The summary has the sweep's metric under the name in the file.
        assert mirror.summary[sweep["metric"]["name"]] == rows[-1]["validation/ne"]


def test_runs_of_one_sweep_share_no_name_of_the_environment(
    server: WandbServer, run: Run, prepared: Path, tmp_path: Path
) -> None:
    """Two points train together and one alone; none uses WANDB_NAME or WANDB_RUN_ID."""
    values = dict(a.split("=") for a in SMALL if not a.startswith("track."))
    values |= {"train.steps": "2", "eval.splits": "validation"}
    for name, more in (
        ("seeds", {"train.seed": {"values": [0, 1]}}),
        ("deep", {"model.depth": {"value": 1}}),
    ):
        parameters = {k: {"value": yaml.safe_load(v)} for k, v in values.items()} | more
        sweep = {"program": "ligr", "method": "grid", "parameters": parameters}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(sweep))
    files = [tmp_path / "seeds.yaml", tmp_path / "deep.yaml"]
    out = tmp_path / "runs"
    words = ["sweep", *files, "--data", prepared, "--out", out, "--together", 2, "--jobs", 2]
    run("-m", "ligr_jax", *words, WANDB_NAME="mine", WANDB_RUN_ID="mine")
    directories = {path.parent for path in out.glob("*/summary.json")}
    assert len(directories) == 3
    assert "mine" not in server.runs
    stored = {r.fields["displayName"]: r for r in server.runs.values()}
    assert stored.keys() == {directory.name for directory in directories}
    for directory in directories:
        rows = read_rows(directory / "metrics.jsonl")
        history = stored[directory.name].history
        assert [r["step"] for r in history] == [r["step"] for r in rows]
        assert stored[directory.name].summary["validation/ne"] == rows[-1]["validation/ne"]
