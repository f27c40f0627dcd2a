"""The interface of a target: a scheduler, or this machine."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from ligr_jax.errors import UsageError
from ligr_jax.launch.client import require_client, run_client
from ligr_jax.launch.manifest import Job, Launch, LaunchConflict
from ligr_jax.launch.options import LaunchOptions
from ligr_jax.launch.rendering import TEMPLATES


class Target(ABC):
    """A scheduler: how its files look, which jobs it has, and how it takes more of them.

    Attributes:
        template: name of the template.
        suffix: suffix of a rendered file.
        one_file: whether one file describes all jobs; otherwise each job has a file.
        client: program that submits jobs.
        remedy: where to find the client.
        accepts: options of `LaunchOptions` that only some targets understand, and this one does.
        needs: options that must be given.
        predicts: whether a runner of `ligr sweep` trains the points, which predicts the largest.
    """

    template: ClassVar[str]
    suffix: ClassVar[str] = ".yaml"
    one_file: ClassVar[bool] = False
    client: ClassVar[str]
    remedy: ClassVar[str]
    accepts: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ()
    predicts: ClassVar[bool] = False

    def __init__(self, options: LaunchOptions) -> None:
        """
        Args:
            options: what to launch.

        Raises:
            UsageError: an option is missing, or this target does not understand it.
        """
        self.options = options
        for name in self.needs:
            if not getattr(options, name):
                raise UsageError(f"--target {options.target} needs --{name}")
        for name in _PARTICULAR:
            is_given = getattr(options, name) != getattr(LaunchOptions, name)
            if is_given and name not in self.accepts:
                raise UsageError(f"--{name} has no meaning for --target {options.target}")

    @property
    def template_path(self) -> Path:
        """File of the template."""
        return self.options.template or TEMPLATES / self.template

    def file_of(self, job: Job) -> Path:
        """Return the rendered file that describes a job."""
        name = self.options.name if self.one_file else job.name
        return self.options.files / f"{name}{self.suffix}"

    def values(self) -> dict[str, Any]:
        """Return the values of the template that are particular to this target."""
        return {}

    def require_client(self) -> None:
        """Check that the program which submits jobs is installed."""
        require_client(self.client, self.remedy)

    def require_capacity(self, launch: Launch) -> None:
        """Check that the scheduler accepts as many jobs as a launch has."""
        return

    @abstractmethod
    def states(self, launch: Launch) -> dict[str, str]:
        """Ask the scheduler for the jobs of a launch that wait or run.

        Returns:
            The scheduler's word for the state of each such job, by name.

        Raises:
            LaunchConflict: the scheduler has jobs of another sweep under these names.
            SchedulerError: the scheduler does not answer.
        """

    @abstractmethod
    def commands(self, launch: Launch, jobs: Sequence[Job]) -> list[list[str]]:
        """Return the commands that submit jobs.

        Args:
            launch: the launched sweep.
            jobs: jobs to submit.
        """

    def submit(self, command: Sequence[str]) -> str:
        """Run a command that submits jobs, and return what it prints."""
        return run_client(command)

    def conflict(self, job: str, owner: str) -> LaunchConflict:
        """Return the error for a job of another sweep."""
        return LaunchConflict(
            f"{self.options.target} has a job {job} of another sweep ({owner}); choose another "
            "--name"
        )


# Options that only some targets understand.
_PARTICULAR = (
    "jobs",
    "partition",
    "account",
    "time",
    "namespace",
    "queue",
    "image",
    "accelerator",
    "spot",
    "cpus",
)
