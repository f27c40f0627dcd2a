"""SLURM, a real one: preempted jobs are requeued, resume and end with the same numbers."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ligr_jax.exit_status import DONE
from ligr_jax.launch.launcher import launch
from ligr_jax.launch.manifest import read_launch
from ligr_jax.launch.options import LaunchOptions
from ligr_jax.launch.rendering import TEMPLATES
from ligr_jax.runs.rows import read_rows
from tests.launch.slurm import Cluster, require_slurm
from tests.ports import free_port
from tests.train.runs import SMALL
from tests.xla import flags

pytestmark = pytest.mark.slow

STEPS = (
    "train.steps=400",
    "train.log_every=1",
    "train.checkpoint_every=1000",
    "eval.splits=validation",
)
# Steps of two processes take several times as long, above all on a busy machine.
SHORT = ("train.steps=40", "train.log_every=1")
TIMES = ("throughput/", "compute/seconds", "compute/device_seconds", "digest")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    require_slurm()
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environment.items():
            patch.setenv(name, value)
        try:
            yield cluster
        finally:
            cluster.stop()


def numbers(run: Path) -> list[dict[str, Any]]:
    """Return the rows of a run without times."""
    rows = read_rows(run / "metrics.jsonl") if (run / "metrics.jsonl").exists() else []
    return [{k: v for k, v in row.items() if not k.startswith(TIMES)} for row in rows]


class Sweep:
    """A sweep over seeds that is launched on the cluster."""

    def __init__(
        self,
        prepared: Path,
        out: Path,
        seeds: Sequence[int],
        more: Sequence[str] = (),
        **options: Any,
    ) -> None:
        out.mkdir(parents=True)
        sweep = out / "sweep.yaml"
        values = ", ".join(map(str, seeds))
        sweep.write_text(f"method: grid\nparameters:\n  train.seed: {{values: [{values}]}}\n")
        self.options = LaunchOptions(
            target="slurm",
            data=str(prepared),
            out=str(out),
            name=out.name,
            files=out / "launch",
            sweeps=(str(sweep),),
            assignments=(*SMALL, *STEPS, *more),
            devices=0,
            partition="low",
            **options,
        )
        self._out = out

    def launch(self) -> str:
        """Launch the sweep, and return what `ligr launch` prints."""
        return "\n".join(launch(self.options))

    @property
    def runs(self) -> list[Path]:
        """The directories of the runs in the order of the seeds."""
        plan = read_launch(self.options.files)
        assert plan is not None
        return [self._out / run for job in plan.jobs for run in job.points]

    def has_begun(self, count: int) -> bool:
        """Return whether the first runs have rows of metrics."""
        return all(len(numbers(run)) > 2 for run in self.runs[:count])

    def log(self, index: int) -> str:
        """Return the output of a job."""
        return (self.options.files / "logs" / f"{self.options.name}-{index}.log").read_text()


def test_preempted_jobs_are_requeued_resume_and_end_with_the_same_numbers(
    cluster: Cluster, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An array of three points, of which two run at a time, and a point of two processes."""
    monkeypatch.setenv("LIGR_ALLOCATOR", "none")
    monkeypatch.setenv("XLA_FLAGS", flags(devices=1))
    # This node stands for two hosts.
    template = tmp_path / "two.sbatch"
    text = (TEMPLATES / "slurm.sbatch").read_text()
    text = text.replace("--nodes={{ hosts }}", "--nodes=1")
    text = text.replace("per-node=1", "per-node={{ hosts }}")
    template.write_text(text)
    two = Sweep(prepared, tmp_path / "two", [0], SHORT, hosts=2, template=template)
    assert "Submitted batch job" in two.launch()
    cluster.wait_until(lambda: two.has_begun(1), 200)
    cluster.preempt()
    array = Sweep(prepared, tmp_path / "array", [1, 2, 3], jobs=2)
    assert "Submitted batch job" in array.launch()
    undisturbed = start_two_processes(prepared, tmp_path / "0")
    undisturbed += [start(prepared, tmp_path / str(seed), seed) for seed in (1, 2, 3)]
    cluster.wait_until(lambda: array.has_begun(2), 200)
    cluster.preempt()
    assert "3 jobs wait or run, 0 to submit" in array.launch()
    assert {process.wait(200) for process in undisturbed} == {DONE}
    cluster.wait_until(lambda: not cluster.queue(), 200)

    for seed, run in enumerate([*two.runs, *array.runs]):
        assert len(numbers(run)) > 20
        assert numbers(run) == numbers(tmp_path / str(seed)), seed
    for log in (two.log(0), array.log(0), array.log(1)):
        assert "stopped by SIGTERM" in log
        assert "resuming at step" in log
    assert "resuming at step" not in array.log(2)
    assert "3 finished; 0 jobs wait or run, 0 to submit" in array.launch()


def start_two_processes(prepared: Path, run: Path) -> list[subprocess.Popen[bytes]]:
    """Train seed 0 in two processes without SLURM."""
    cluster = {"JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}", "JAX_NUM_PROCESSES": "2"}
    return [
        start(prepared, run, 0, *SHORT, **cluster, JAX_PROCESS_ID=str(index)) for index in range(2)
    ]


def start(
    prepared: Path, run: Path, seed: int, *more: str, **environment: str
) -> subprocess.Popen[bytes]:
    """Train a seed in a process of its own without SLURM."""
    command = [sys.executable, "-m", "ligr_jax", "train", "--data", str(prepared), "--out"]
    command += [str(run), *SMALL, *STEPS, *more, f"train.seed={seed}"]
    return subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )


FAKE = """\
case $SLURM_ARRAY_TASK_ID in
  0) [ "$SLURM_RESTART_COUNT" = 2 ] || exit 134 ;;
  1) exit 1 ;;
  *) trap 'exit 85' TERM; while true; do sleep 0.1; done ;;
esac
"""


def test_only_what_can_continue_is_requeued(
    cluster: Cluster, prepared: Path, tmp_path: Path
) -> None:
    """A lost process is; neither a failure nor a job that `scancel` has stopped is."""
    fake, template = tmp_path / "fake.sh", tmp_path / "fake.sbatch"
    fake.write_text(FAKE)
    text = (TEMPLATES / "slurm.sbatch").read_text()
    template.write_text(text.replace("{{ ligr | sh }}", f"bash {fake}"))
    sweep = Sweep(prepared, tmp_path / "a b" / "fake", [0, 1, 2], template=template)
    sweep.launch()
    cluster.wait_until(lambda: len(cluster.queue()) == 1, 100)  # the others have ended
    ((job, state, _),) = cluster.queue()
    assert state == "RUNNING"
    assert "1 jobs wait or run, 2 to submit (" in "\n".join(launch(sweep.options, dry_run=True))
    cluster.ask("scancel", job)
    cluster.wait_until(lambda: not cluster.queue(), 100)
    assert "0 jobs wait or run, 3 to submit" in "\n".join(launch(sweep.options, dry_run=True))
