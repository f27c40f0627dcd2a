"""The largest runs of ladders, which are predicted from the other runs before their submission."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ligr_jax.data.manifest import load_manifest
from ligr_jax.launch.manifest import Job
from ligr_jax.runs.directory import summary_or_none
from ligr_jax.runs.files import RunFiles
from ligr_jax.scaling.estimate import Estimator, rough_flops
from ligr_jax.scaling.predict import (
    largest_of_ladders,
    other_rungs,
    predict_largest,
    with_its_seeds,
)
from ligr_jax.scaling.sweep import ResolvedPoint


@dataclass(frozen=True)
class Unpredicted:
    """The largest run of a ladder, before it is predicted.

    Attributes:
        point: the largest run.
        runs: names of this run and of its other seeds, which would reveal its result.
        points: all points of the sweeps.
        file: name of the file of its prediction.
        missing: runs that have not finished, of those that predict it.
    """

    point: ResolvedPoint
    runs: frozenset[str]
    points: Sequence[ResolvedPoint]
    file: str
    missing: tuple[str, ...]

    def waits(self, jobs: Sequence[Job]) -> str:
        """Return the line that says why the jobs of the largest run are not submitted."""
        return (
            f"held back: {', '.join(job.name for job in jobs)} (the largest of its ladder), "
            f"because its result is predicted first, and {len(self.missing)} of the runs that "
            "predict it have not finished. Launch again when they have, or give --submit-largest"
        )

    def predict(self, data: Path, out: Path) -> None:
        """Write the prediction from the finished runs; see `predict_largest`.

        Args:
            data: directory of prepared data, from which the FLOPs of the run are counted.
            out: directory of the runs.
        """
        flops = Estimator(data).flops(self.point.config)
        predict_largest(self.point, self.points, out / self.file, flops)


def find_unpredicted(points: Sequence[ResolvedPoint], data: Path, out: Path) -> list[Unpredicted]:
    """Return the largest runs of the sweeps' ladders, if a prediction would mean something.

    Args:
        points: all points of the sweeps.
        data: directory of prepared data; only its manifest is read.
        out: directory of the runs.

    Returns:
        One per architecture with a ladder, without those that are predicted or have started.
    """
    manifest = load_manifest(data)

    def flops_of(point: ResolvedPoint) -> float:
        return rough_flops(point.config, manifest)

    found = []
    for file, point in largest_of_ladders(points, flops_of).items():
        if (out / file).exists() or RunFiles(out / point.name).metrics.exists():
            continue
        others = (p.name for p in other_rungs(point, points))
        found.append(
            Unpredicted(
                point=point,
                runs=frozenset(p.name for p in with_its_seeds(point, points)),
                points=points,
                file=file,
                missing=tuple(name for name in others if summary_or_none(out / name) is None),
            )
        )
    return found
