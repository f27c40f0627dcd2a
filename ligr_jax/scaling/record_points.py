"""The list of a sweep's points, OUT/sweep.json, which runners and launches add to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ligr_jax.digests import write_json
from ligr_jax.lock import when_free
from ligr_jax.runs.directory import summary_or_none
from ligr_jax.runs.files import SWEEP
from ligr_jax.runs.listed import read_listed
from ligr_jax.scaling.sweep import ResolvedPoint
from ligr_jax.store.stage import stage


def record_points(points: Sequence[ResolvedPoint], out: Path) -> None:
    """Add the points to OUT/sweep.json; the points of earlier calls and other runners remain.

    Args:
        points: points of this call.
        out: directory of the runs.
    """
    path = out / SWEEP
    if all(summary_or_none(out / p.name) for p in points) and not _changed_entries(points, path):
        return  # nothing to write, so the disk may be read-only
    with when_free(out):
        stage(out, [SWEEP], owned=True)
        known = {p["run"]: p for p in read_listed(path)["points"] if "run" in p}
        known |= _changed_entries(points, path, with_costs=True)
        write_json(path, {"points": list(known.values())})


def _changed_entries(
    points: Sequence[ResolvedPoint], path: Path, with_costs: bool = False
) -> dict[str, dict[str, Any]]:
    """Return the entries of sweep.json that are new or list another sweep, by run.

    Args:
        points: points of this call.
        path: the file; it may be absent.
        with_costs: return the entries of all points, because their estimates may have changed.
    """
    known = {p["run"]: p for p in read_listed(path)["points"] if "run" in p}
    entries = {}
    for point in points:
        listed = known.get(point.name, {}).get("sweeps", ())
        sweeps = list(dict.fromkeys((*listed, *point.sweeps)))
        if with_costs or list(listed) != sweeps:
            before = known.get(point.name, {})  # a point without an estimate keeps an earlier one
            entries[point.name] = before | point.to_json() | {"sweeps": sweeps}
    return entries
