"""SkyPilot itself reads the rendered tasks.

It cannot be installed next to this package, whose dependencies conflict with its own, so the Python
of another environment reads them. The variable LIGR_SKY_PYTHON has its path; `.ci/run` sets it.
"""

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from ligr_jax.launch.launcher import launch
from ligr_jax.launch.manifest import read_launch
from ligr_jax.launch.options import LaunchOptions

pytestmark = pytest.mark.slow

READ = """
import json, sys
import sky
for path in sys.argv[1:]:
    task = sky.Task.from_yaml(path)
    (resources,) = task.resources
    print(json.dumps({
        "name": task.name,
        "nodes": task.num_nodes,
        "accelerators": resources.accelerators,
        "spot": resources.use_spot,
        "image": resources.image_id,
        "recovery": resources.job_recovery,
        "envs": task.envs,
        "run": task.run,
    }))
"""


def test_skypilot_reads_every_task_as_it_was_meant(prepared: Path, tmp_path: Path) -> None:
    python = os.environ.get("LIGR_SKY_PYTHON")
    if not python:
        pytest.skip("no SkyPilot: set LIGR_SKY_PYTHON to the Python of an environment that has it")
    gpus = _options(prepared, tmp_path / "gpus", accelerator="H100", devices=8, hosts=2, spot=True)
    cpu = _options(prepared, tmp_path / "cpu", devices=0, cpus=4)
    tasks = []
    for options in (gpus, cpu):
        launch(options, dry_run=True)
        plan = read_launch(options.files)
        assert plan is not None
        tasks += [(job, options.files / f"{job.name}.yaml") for job in plan.jobs]
    home = {"HOME": str(tmp_path), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    read = subprocess.run(
        [python, "-c", READ, *(str(path) for _, path in tasks)],
        env={"PATH": os.environ["PATH"], **home},
        capture_output=True,
        text=True,
    )
    assert read.returncode == 0, read.stderr
    for (job, _), line in zip(tasks, read.stdout.splitlines(), strict=True):
        task = json.loads(line)
        assert task["name"] == job.name
        assert {str(v) for v in task["image"].values()} == {"docker:registry.example/ligr:1"}
        assert task["recovery"]["recover_on_exit_codes"] == [85, 134]
        *exports, command = task["run"].strip().splitlines()
        out = task["envs"]["LIGR_OUT"]
        assert f"{out}/{job.points[0]}" in shlex.split(command)
        if out == gpus.out:
            assert (task["nodes"], task["spot"]) == (2, True)
            assert task["accelerators"] == {"H100": 8}
            assert len(exports) == 3
        else:
            assert (task["nodes"], task["spot"], task["accelerators"]) == (1, False, None)
            assert task["envs"]["JAX_PLATFORMS"] == "cpu"


def _options(
    prepared: Path,
    out: Path,
    accelerator: str = "",
    devices: int = 1,
    hosts: int = 1,
    cpus: int = 0,
    spot: bool = False,
) -> LaunchOptions:
    return LaunchOptions(
        target="skypilot",
        data=str(prepared),
        out=str(out),
        name="depth",
        files=out / "launch" / "depth",
        sweeps=("tiny/depth",),
        image="registry.example/ligr:1",
        accelerator=accelerator,
        devices=devices,
        hosts=hosts,
        cpus=cpus,
        spot=spot,
    )
