"""SLURM, a real one: preempted jobs are requeued, resume and end with the same numbers."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ligr_jax.launch.launcher import launch
from ligr_jax.launch.manifest import read_launch
from ligr_jax.launch.options import LaunchOptions
from ligr_jax.launch.rendering import TEMPLATES
from ligr_jax.runs.rows import read_rows
from ligr_jax.train.loop import train
from tests.launch.slurm import Cluster, require_slurm
from tests.train.runs import SMALL, small_config
from tests.xla import flags

pytestmark = pytest.mark.slow

STEPS = (
    *("model.set_depth=0", "model.features=item_id,surface", "eval.splits="),
    *("train.steps=80", "train.log_every=1", "train.checkpoint_every=1000"),
)


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


def losses(run: Path) -> list[float]:
    """Return the losses of a run's rows."""
    path = run / "metrics.jsonl"
    return [row["train/loss"] for row in read_rows(path) if "train/loss" in row]


class Sweep:
    """A sweep over seeds that is launched on the cluster."""

    def __init__(
        self,
        prepared: Path,
        out: Path,
        seeds: Sequence[int],
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
            assignments=(*SMALL, *STEPS),
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

    def has_begun(self) -> bool:
        """Return whether the first run has rows of metrics."""
        run = self.runs[0]
        return (run / "metrics.jsonl").exists() and len(losses(run)) > 2

    def log(self, index: int) -> str:
        """Return the output of a job."""
        return (self.options.files / "logs" / f"{self.options.name}-{index}.log").read_text()


def test_preempted_jobs_are_requeued_resume_and_end_with_the_same_numbers(
    cluster: Cluster, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An array of two points, one at a time, each of two processes."""
    # One process with two devices trains the preempted run, undisturbed.
    train(small_config(prepared, *STEPS, "train.seed=0", "mesh.data=2"), tmp_path / "0")

    monkeypatch.setenv("LIGR_ALLOCATOR", "none")
    monkeypatch.setenv("XLA_FLAGS", flags(devices=1))
    # This node stands for two hosts.
    template = tmp_path / "two.sbatch"
    text = (TEMPLATES / "slurm.sbatch").read_text()
    text = text.replace("--nodes={{ hosts }}", "--nodes=1")
    text = text.replace("per-node=1", "per-node={{ hosts }}")
    template.write_text(text)
    sweep = Sweep(prepared, tmp_path / "array", [0, 1], hosts=2, jobs=1, template=template)
    assert "Submitted batch job" in sweep.launch()
    cluster.wait_until(sweep.has_begun, 200)
    cluster.preempt()
    assert "2 jobs wait or run, 0 to submit" in sweep.launch()
    cluster.wait_until(lambda: not cluster.queue(), 200)

    preempted, other = (losses(run) for run in sweep.runs)
    np.testing.assert_allclose(preempted, losses(tmp_path / "0"), rtol=1e-4)  # rounding grows
    assert len(other) == len(preempted) == 80
    assert "stopped by SIGTERM" in sweep.log(0)
    assert "resuming at step" in sweep.log(0)
    assert "resuming at step" not in sweep.log(1)
    assert "2 finished; 0 jobs wait or run, 0 to submit" in sweep.launch()


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
