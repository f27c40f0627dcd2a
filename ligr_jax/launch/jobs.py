"""The jobs of a sweep: which points train together, and the command of each job."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ligr_jax.errors import UsageError
from ligr_jax.launch.manifest import Job, Launch
from ligr_jax.scaling.sweep import ResolvedPoint
from ligr_jax.train.vmapped import plan_run_batches

# Kubernetes appends "-main-0-9999-abcde" to the name of a JobSet, and names of pods have 63
# characters. A job is named NAME-DIGEST, and a digest has 12.
_LONGEST = 63 - len("-main-0-9999-abcde") - len("-0123456789ab")
_NAME = re.compile(rf"[a-z]([a-z0-9-]{{0,{_LONGEST - 2}}}[a-z0-9])?")


def default_name(sweep: str) -> str:
    """Return the name of a launch: that of its first sweep, e.g. "tiny-ladder"."""
    path = Path(sweep)
    text = path.stem if path.suffix else sweep
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_LONGEST].rstrip("-")
    return name if _NAME.fullmatch(name) else f"sweep-{name}"[:_LONGEST].rstrip("-")


def require_name(name: str) -> None:
    """Check the name of a launch.

    Raises:
        UsageError: schedulers do not accept the name.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"--name {name}: give at most {_LONGEST} of a-z, 0-9 and -, the first one a letter and "
            "the last one not -"
        )


def assign_jobs(
    points: Sequence[ResolvedPoint], group: int, name: str, known: Sequence[Job] = ()
) -> tuple[Job, ...]:
    """Return the jobs of a sweep.

    Args:
        points: points of the sweep.
        group: largest number of points that a job trains as one program.
        name: name of the launch.
        known: jobs of earlier launches of this sweep, which stay as they are.

    Returns:
        The known jobs, then jobs for the points that have none. A job is named by its first point.
    """
    assigned = {run for job in known for run in job.points}
    new = [point for point in points if point.name not in assigned]
    jobs = list(known)
    for batch in plan_run_batches([point.config for point in new], group):
        runs = tuple(new[index].name for index in batch)
        jobs.append(Job(index=len(jobs), name=f"{name}-{runs[0]}", points=runs))
    return tuple(jobs)


def job_arguments(launch: Launch, job: Job, points: Mapping[str, dict[str, Any]]) -> list[str]:
    """Return the words after `ligr` that train the points of a job.

    Args:
        launch: the launched sweep.
        job: one of its jobs.
        points: entries of the points by run.
    """
    train = ["train", "--data", launch.data]
    if len(job.points) == 1:
        (run,) = job.points
        words = points[run]["assignments"]
        return [*train, "--out", f"{launch.out}/{run}", "--digest", run, *words]
    together = [
        {"out": f"{launch.out}/{run}", "digest": run, "assignments": points[run]["assignments"]}
        for run in job.points
    ]
    return [*train, "--together", json.dumps(together)]
