"""This machine: the runner of `ligr sweep`, in the foreground."""

import os
from collections.abc import Sequence
from typing import Any, NoReturn

from ligr_jax.errors import UsageError
from ligr_jax.launch.manifest import Job, Launch
from ligr_jax.launch.options import LaunchOptions
from ligr_jax.launch.target import Target


class Local(Target):
    """A script with one `ligr sweep`, which owns the points."""

    template = "local.sh"
    suffix = ".sh"
    one_file = True
    client = "sh"
    remedy = "install a POSIX shell"
    accepts = ("jobs",)
    predicts = True

    def __init__(self, options: LaunchOptions) -> None:
        super().__init__(options)
        if options.hosts != 1 or options.devices != 1:
            raise UsageError(
                "--target local uses all accelerators of this machine; leave out --hosts and "
                "--devices"
            )

    def values(self) -> dict[str, Any]:
        """Return the values of the template that are particular to this target."""
        options = self.options
        words = ["sweep", *options.sweeps, *options.assignments]
        words += ["--data", options.data, "--out", options.out]
        words += ["--jobs", str(options.jobs or 1), "--together", str(options.group)]
        return {"sweep": words + (["--only", *options.only] if options.only else [])}

    def states(self, launch: Launch) -> dict[str, str]:
        """Return no states: the runner itself finds the points that other runners train."""
        return {}

    def commands(self, launch: Launch, jobs: Sequence[Job]) -> list[list[str]]:
        """Return the command that trains the points."""
        return [["sh", str(self.file_of(jobs[0]))]]

    def submit(self, command: Sequence[str]) -> NoReturn:
        """Run the script in place of this process, so that signals reach the runner."""
        os.execvp(command[0], list(command))
