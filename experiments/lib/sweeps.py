"""Worlds and sweeps of an experiment, by the commands of `ligr`; finished parts are kept."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ligr_jax.atomic import write_atomically
from ligr_jax.cli import main as ligr


def prepared_world(directory: Path, members: int) -> Path:
    """Return the prepared data of a world with seed 0, which is made if it does not exist."""
    prepared = directory / "prepared"
    if not (prepared / "manifest.json").exists():
        log = str(directory / "log")
        run_command("world", "--out", log, "--members", str(members), "--seed", "0")
        run_command("prepare", log, "--out", str(prepared))
    return prepared


def run_command(*words: str) -> None:
    """Run `ligr WORDS` in this process.

    Raises:
        SystemExit: the command failed.
    """
    if status := ligr(list(words)):
        raise SystemExit(f"ligr {' '.join(words)}: status {status}")


def run_sweep(
    files: Sequence[Path], data: Path, out: Path, *assignments: str, together: int = 3
) -> None:
    """Train the points of sweep files; finished runs are skipped.

    Args:
        files: sweep files.
        data: prepared data.
        out: directory of the runs.
        assignments: settings of all runs.
        together: number of runs that are trained together.

    Raises:
        SystemExit: some points failed.
    """
    where = ["--data", str(data), "--out", str(out), "--together", str(together)]
    if ligr(["sweep", *map(str, files), *assignments, *where]):
        raise SystemExit("some points failed; run again")


def write_sweep(path: Path, sweep: Mapping[str, Any]) -> Path:
    """Write a sweep file and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, yaml.safe_dump(dict(sweep), sort_keys=False))
    return path


def arms_sweep(
    settings: Mapping[str, Any], changes: Sequence[str], seeds: Sequence[int]
) -> dict[str, Any]:
    """Return a grid of changes and seeds with fixed settings."""
    parameters: dict[str, Any] = {name: {"value": value} for name, value in settings.items()}
    parameters["change"] = {"values": list(changes)}
    parameters["train.seed"] = {"values": list(seeds)}
    return {"method": "grid", "parameters": parameters}


def changes_of_runs(runs: Path) -> dict[str, str]:
    """Return the change of each run of a sweep; runs without a change are left out."""
    points = json.loads((runs / "sweep.json").read_text())["points"]
    return {
        point["run"]: assignment.removeprefix("change=")
        for point in points
        for assignment in point["assignments"]
        if assignment.startswith("change=")
    }
