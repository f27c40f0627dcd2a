"""The manifest of a launched sweep: which job of the scheduler trains which points.

DIR/manifest.json has the names of the jobs. They are stable: a job keeps its name, its index and
its points when the sweep is launched again, also with more points. DIR is OUT/launch/NAME, unless
`--files` names another directory. The file is JSON with a digest:

    {"format": "ligr-launch", "version": 1,
     "name": "tiny-ladder", "target": "slurm",
     "data": "/shared/prepared", "out": "/shared/runs",
     "hosts": 1, "devices": 8, "group": 1,
     "grace_s": 182, "grace_source": "2 x 61.0 s + 60 s: run 1f0c... saved in 61.0 s",
     "jobs": [{"index": 0, "name": "tiny-ladder-1f0c...", "points": ["1f0c..."]}, ...],
     "points": [{"run": "1f0c...", "sweeps": [...], "assignments": [...]}, ...]}

`index` is the index in a SLURM array. The directory of a point is OUT/RUN.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ligr_jax.digests import DamagedFile, read_json, write_json
from ligr_jax.errors import LigrError

MANIFEST = "manifest.json"
DIRECTORY = "launch"  # in the directory of the runs
_FORMAT, _VERSION = "ligr-launch", 1
_REMEDY = "move it away, and start `ligr launch` with the same arguments again"


class LaunchConflict(LigrError):
    """A name belongs to another sweep."""


@dataclass(frozen=True)
class Job:
    """A job of a scheduler.

    Attributes:
        index: index of the job in the sweep.
        name: name of the job, below 46 characters.
        points: names of the runs that the job trains as one program.
    """

    index: int
    name: str
    points: tuple[str, ...]


@dataclass(frozen=True)
class Launch:
    """A launched sweep.

    Attributes:
        name: first part of the names of all jobs.
        target: name of the scheduler, e.g. "slurm".
        data: path or URI of the prepared data.
        out: path or URI of the directory of the runs.
        hosts: hosts of each job.
        devices: accelerators of each host.
        group: largest number of points of a job.
        jobs: the jobs in the order of their indices.
        points: entries of the points, as in sweep.json.
        grace_s: seconds between the signal to stop and the kill, in the files of the last call.
        grace_source: where this time comes from.
    """

    name: str
    target: str
    data: str
    out: str
    hosts: int
    devices: int
    group: int
    jobs: tuple[Job, ...]
    points: tuple[dict[str, Any], ...]
    grace_s: int = 0
    grace_source: str = ""


def read_launch(directory: Path) -> Launch | None:
    """Read the manifest of a launched sweep.

    Args:
        directory: directory of its files.

    Returns:
        The launch; None if the directory has no manifest.

    Raises:
        DamagedFile: the manifest is damaged.
        LigrError: another release wrote the manifest.
    """
    path = directory / MANIFEST
    if not path.exists():
        return None
    content = read_json(path, _REMEDY)
    kind, version = content.pop("format", None), content.pop("version", None)
    if kind != _FORMAT:
        raise DamagedFile(f"{path}: not the manifest of a launch (format={kind!r}); {_REMEDY}")
    if version != _VERSION:
        raise LigrError(
            f"{path}: version {version}, and this release reads {_VERSION}; use the release that "
            "launched the sweep"
        )
    try:
        jobs = tuple(
            Job(index=job["index"], name=job["name"], points=tuple(job["points"]))
            for job in content.pop("jobs")
        )
        return Launch(jobs=jobs, points=tuple(content.pop("points")), **content)
    except (KeyError, TypeError) as e:
        raise DamagedFile(f"{path}: not the manifest of a launch ({e}); {_REMEDY}") from e


def read_launches(out: Path) -> list[Launch]:
    """Return the launches whose manifests are in OUT/launch."""
    launches = (read_launch(path.parent) for path in sorted(out.glob(f"{DIRECTORY}/*/{MANIFEST}")))
    return [launch for launch in launches if launch is not None]


def write_launch(launch: Launch, directory: Path) -> None:
    """Write the manifest of a launched sweep."""
    write_json(directory / MANIFEST, {"format": _FORMAT, "version": _VERSION, **asdict(launch)})


def require_same(before: Launch, now: Launch, directory: Path) -> None:
    """Refuse to launch another sweep under the name of an earlier one.

    Args:
        before: the earlier launch in this directory.
        now: the launch that would replace it.
        directory: directory of their files.

    Raises:
        LaunchConflict: the scheduler, the data or the directory of the runs differ.
    """
    for field in ("name", "target", "data", "out"):
        old, new = getattr(before, field), getattr(now, field)
        if old != new:
            raise LaunchConflict(
                f"{directory} has a launch with {field}={old}, requested {new}; choose another "
                "--name"
            )
