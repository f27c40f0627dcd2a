"""Command-line clients of schedulers: `sbatch`, `kubectl`, `sky`."""

import shutil
import subprocess
from collections.abc import Sequence

from ligr_jax.errors import LigrError


class SchedulerError(LigrError):
    """The client of a scheduler is missing, or it refused a command."""


def require_client(program: str, remedy: str) -> None:
    """Check that the client of a scheduler is installed.

    Args:
        program: name of the client, e.g. "sbatch".
        remedy: where to find it; the end of the message.

    Raises:
        SchedulerError: it is not on PATH.
    """
    if shutil.which(program) is None:
        raise SchedulerError(
            f"`{program}` is not on PATH; {remedy}, or use --dry-run, which only writes the files"
        )


def run_client(command: Sequence[str]) -> str:
    """Run the client of a scheduler and return what it prints.

    Args:
        command: program and arguments.

    Raises:
        SchedulerError: the client ends with an error; the message has its output.
    """
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        raise SchedulerError(
            f"`{' '.join(command[:3])} ...` ended with status {done.returncode}: "
            + "; ".join(words[-3:])
        )
    return done.stdout
