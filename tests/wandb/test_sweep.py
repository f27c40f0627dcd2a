"""Sweeps with W&B on loopback: `wandb sweep`, `wandb agent` and `ligr train`."""

import os
import re
import sys
from pathlib import Path

import pytest
import yaml

from ligr_jax.runs.rows import read_rows
from tests.train.runs import SMALL
from tests.wandb.server import Run, WandbServer

pytestmark = pytest.mark.slow

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

# `wandb agent`, which otherwise asks every five seconds whether a run has ended.
AGENT = """
from wandb.cli.cli import cli
from wandb.wandb_agent import Agent
Agent.POLL_INTERVAL = 0.2
cli(prog_name="wandb")
"""


def test_an_agent_runs_a_sweep_and_resumes_a_preempted_run(
    server: WandbServer, run: Run, prepared: Path, tmp_path: Path
) -> None:
    (shipped, *_) = sorted((ROOT / "sweeps").rglob("*.yaml"))
    sweep = yaml.safe_load(shipped.read_text())
    settings = dict(a.split("=") for a in SMALL if not a.startswith("track."))
    settings |= {"train.steps": "100", "train.checkpoint_every": "100"}
    settings |= {"model.features": "item_id,surface", "model.set_depth": "0"}
    settings |= {"eval.splits": "validation"}
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
    run("-c", AGENT, "agent", registered[1], PATH=path, **places)

    assert len(server.runs) == 2
    stored = {r.config["model.depth"]: r for r in server.runs.values()}
    assert set(stored) == {1, 2}
    assert stored[1].preempting
    for metrics in runs.glob("*/metrics.jsonl"):
        rows = read_rows(metrics)
        digits = f"({metrics.parent.name[:4]})"
        (mirror,) = (r for r in stored.values() if r.fields["displayName"].endswith(digits))
        assert mirror.exit_code == 0
        assert mirror.fields["sweep"] == registered[1].split("/")[-1]
        assert [r["step"] for r in mirror.history] == [r["step"] for r in rows]
        assert [r.get("train/loss") for r in mirror.history] == [r.get("train/loss") for r in rows]
        # The summary has the sweep's metric under the name in the file.
        assert mirror.summary[sweep["metric"]["name"]] == rows[-1]["validation/ne"]
