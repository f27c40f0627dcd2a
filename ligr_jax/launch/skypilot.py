"""SkyPilot: a managed job for each job, on the clouds and clusters that SkyPilot is set up for."""

import json
from collections.abc import Sequence
from typing import Any

import yaml

from ligr_jax.errors import UsageError
from ligr_jax.launch.client import run_client
from ligr_jax.launch.manifest import Job, Launch
from ligr_jax.launch.options import LaunchOptions
from ligr_jax.launch.target import Target


class SkyPilot(Target):
    """Managed jobs, which SkyPilot starts again on other machines after a preemption."""

    template = "skypilot.yaml"
    client = "sky"
    remedy = "install it in an environment of its own (pipx install skypilot)"
    accepts = ("image", "accelerator", "cpus", "spot")
    needs = ("image",)

    def __init__(self, options: LaunchOptions) -> None:
        super().__init__(options)
        if options.devices and not options.accelerator:
            raise UsageError(
                "--target skypilot needs --accelerator (e.g. H100; `sky gpus list` has the names), "
                "or --devices 0"
            )

    def values(self) -> dict[str, Any]:
        """Return the values of the template that are particular to this target."""
        options = self.options
        accelerators = f"{options.accelerator}:{options.devices}" if options.devices else ""
        return {"accelerators": accelerators, "port": 8476}

    def states(self, launch: Launch) -> dict[str, str]:
        """Ask the scheduler for the jobs of a launch that wait or run."""
        command = ["sky", "jobs", "queue", "--skip-finished", "--all", "--output=json"]
        names = {job.name for job in launch.jobs}
        states = {}
        for row in json.loads(run_client(command)):
            name, task = row["job_name"], row.get("user_yaml")
            if name not in names:
                continue
            owner = yaml.safe_load(task)["envs"]["LIGR_OUT"] if task else launch.out
            if owner != launch.out:
                raise self.conflict(name, owner)
            states[name] = row["status"]
        return states

    def commands(self, launch: Launch, jobs: Sequence[Job]) -> list[list[str]]:
        """Return the commands that submit jobs."""
        launch_job = ["sky", "jobs", "launch", "--yes", "--detach-run"]
        return [[*launch_job, f"--name={job.name}", str(self.file_of(job))] for job in jobs]
