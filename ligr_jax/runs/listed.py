"""The points that sweep.json lists."""

from pathlib import Path
from typing import Any

from ligr_jax.digests import DamagedFile, read_json


def read_listed(path: Path) -> dict[str, Any]:
    """Read sweep.json.

    Args:
        path: Path of the file; it may be absent.

    Returns:
        An object with `points`, a list of objects.

    Raises:
        DamagedFile: The file is damaged.
    """
    remedy = "move it away: `ligr sweep` with the same files writes it again, and keeps all runs"
    if not path.exists():
        return {"points": []}
    listed = read_json(path, remedy)
    points = listed.get("points")
    if not isinstance(points, list) or not all(isinstance(p, dict) for p in points):
        raise DamagedFile(f"{path}: its `points` are not a list of objects; {remedy}")
    return listed
