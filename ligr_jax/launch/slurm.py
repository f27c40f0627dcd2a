"""SLURM: one array, a task for each job."""

from collections.abc import Sequence
from typing import Any

from ligr_jax.launch.client import SchedulerError, run_client
from ligr_jax.launch.manifest import Job, Launch
from ligr_jax.launch.target import Target


class Slurm(Target):
    """An sbatch array. The comment of its jobs is the directory of the runs."""

    template = "slurm.sbatch"
    suffix = ".sbatch"
    one_file = True
    client = "sbatch"
    remedy = "run `ligr launch` on a login node of the cluster"
    accepts = ("jobs", "partition", "account", "time", "accelerator", "cpus")

    def values(self) -> dict[str, Any]:
        """Return the values of the template that are particular to this target."""
        kind = f"{self.options.accelerator}:" if self.options.accelerator else ""
        return {"gpus": f"{kind}{self.options.devices}" if self.options.devices else ""}

    def states(self, launch: Launch) -> dict[str, str]:
        """Ask the scheduler for the jobs of a launch that wait or run."""
        command = ["squeue", "--me", "--array", "--noheader", f"--name={launch.name}"]
        by_index = {str(job.index): job.name for job in launch.jobs}
        states = {}
        for line in run_client([*command, "--format=%K|%T|%k"]).splitlines():
            index, state, comment = line.split("|", 2)
            if comment != launch.out:
                raise self.conflict(launch.name, comment)
            # An index without a job is one that another call of `ligr launch` has just added.
            if index in by_index:
                states[by_index[index]] = state
        return states

    def commands(self, launch: Launch, jobs: Sequence[Job]) -> list[list[str]]:
        """Return the commands that submit jobs."""
        at_once = f"%{self.options.jobs}" if self.options.jobs else ""
        indices = _ranges([job.index for job in jobs])
        return [
            [
                "sbatch",
                f"--array={indices}{at_once}",
                f"--comment={launch.out}",
                str(self.file_of(jobs[0])),
            ]
        ]

    def require_capacity(self, launch: Launch) -> None:
        """Check that the cluster allows an array with the indices of a launch.

        Raises:
            SchedulerError: an index is too large.
        """
        for line in run_client(["scontrol", "show", "config"]).splitlines():
            name, _, value = line.partition("=")
            if name.strip() == "MaxArraySize" and len(launch.jobs) > int(value):
                raise SchedulerError(
                    f"{launch.name} has {len(launch.jobs)} jobs, and the cluster allows "
                    f"MaxArraySize={value.strip()} in an array; raise --group, or launch parts of "
                    "the sweep under different names (--only, --name)"
                )


def _ranges(indices: Sequence[int]) -> str:
    """Return indices as sbatch takes them, e.g. "0-3,7"."""
    parts: list[list[int]] = []
    for index in sorted(indices):
        if parts and index == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], index]
        else:
            parts.append([index])
    return ",".join("-".join(map(str, part)) for part in parts)
