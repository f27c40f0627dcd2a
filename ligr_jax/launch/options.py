"""Options of `ligr launch`: what a job needs, and what one scheduler alone understands."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class LaunchOptions:
    """What to launch, and where.

    Attributes:
        target: name of the scheduler: local, slurm, jobset, trainjob or skypilot.
        data: path or URI of the prepared data, as the jobs see it.
        out: path or URI of the directory of the runs.
        name: first part of the names of all jobs.
        files: directory of the manifest and the rendered files.
        sweeps: sweep files or names of shipped sweeps.
        assignments: assignments for every point.
        only: words that a point must match.
        group: largest number of points that a job trains as one program.
        submit_largest: whether the largest run of a ladder is submitted before the other runs of
            the ladder have finished.
        hosts: hosts of each job; one process runs on each.
        devices: accelerators of each host; 0 trains on the CPU.
        cpus: CPU cores of each host; 0 for the scheduler's default.
        jobs: largest number of jobs that run at the same time; 0 for no limit.
        grace_s: seconds between the signal to stop and the kill; 0 to choose them by the save times
            of finished runs.
        template: file to render instead of the target's own template.
        partition: partition of SLURM.
        account: account of SLURM.
        time: time limit of a SLURM job, e.g. "08:00:00".
        namespace: namespace of Kubernetes.
        queue: local queue of Kueue.
        image: container image that has `ligr`.
        accelerator: type of the accelerators, in the words of the target.
        spot: whether SkyPilot uses spot instances.
    """

    target: str
    data: str
    out: str
    name: str
    files: Path
    sweeps: tuple[str, ...]
    assignments: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    group: int = 1
    submit_largest: bool = False
    hosts: int = 1
    devices: int = 1
    cpus: int = 0
    jobs: int = 0
    grace_s: int = 0
    template: Path | None = None
    partition: str = ""
    account: str = ""
    time: str = ""
    namespace: str = "default"
    queue: str = ""
    image: str = ""
    accelerator: str = ""
    spot: bool = False

    @property
    def is_tpu(self) -> bool:
        """Whether the accelerators are TPUs."""
        return self.accelerator.startswith("tpu")
