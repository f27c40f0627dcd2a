"""`ligr check`: an artifact is refused unless its files and its scores are those of the export."""

from typing import NamedTuple

from ligr_jax.serve.artifact import Artifact
from ligr_jax.serve.golden import (
    golden_scores,
    host_signature,
    read_golden,
    require_golden_scores,
)
from ligr_jax.serve.manifest import GOLDEN, require_intact_version


class Checked(NamedTuple):
    """Result of the check of an artifact that may be served.

    Attributes:
        version: name of the version.
        exported, expires: times in ISO 8601.
        requests: number of golden requests.
        differences: largest difference of each kind of score from the export.
        tolerance: largest difference that was accepted; 0 for equality bit by bit.
        changed: what differs from the host of the export: name, there, here.
    """

    version: str
    exported: str
    expires: str
    requests: int
    differences: dict[str, float]
    tolerance: float
    changed: dict[str, tuple[str, str]]

    def words(self) -> str:
        """Return the result in words."""
        differences = ", ".join(f"{name} {x:.3g}" for name, x in self.differences.items())
        kind = "bit by bit" if self.tolerance == 0 else f"within {self.tolerance:.3g}"
        lines = [
            f"version {self.version}, exported {self.exported[:10]}, expires {self.expires[:10]}",
            f"{self.requests} golden requests are equal {kind}; largest differences: {differences}",
        ]
        lines += [
            f"other {name} than at the export: there {there}, here {here}"
            for name, (there, here) in self.changed.items()
        ]
        return "\n".join(lines)


def check_artifact(artifact: Artifact) -> Checked:
    """Compare all files with their digests, and the scores of golden requests with the export's.

    Args:
        artifact: an artifact that was loaded.

    Raises:
        DamagedArtifact: a file is not what was written.
        WrongScores: scores differ.
    """
    manifest = artifact.manifest
    require_intact_version(artifact.directory, manifest)
    golden = read_golden(artifact.directory / GOLDEN)
    there, here = manifest.golden["host"], host_signature()
    changed = {name: (there[name], here[name]) for name in there if there[name] != here[name]}
    tolerance = float(manifest.golden["tolerance"]) if changed else 0.0
    scores = golden_scores(artifact, golden.history, golden.candidates)
    differences = require_golden_scores(artifact.directory, golden.scores, scores, tolerance)
    return Checked(
        version=artifact.directory.name,
        exported=manifest.exported,
        expires=manifest.expires,
        requests=len(golden.history.member),
        differences=differences,
        tolerance=tolerance,
        changed=changed,
    )
