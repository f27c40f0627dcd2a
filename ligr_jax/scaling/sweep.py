"""Sweep files and their points.

A sweep file is a W&B sweep of method `grid`; no server is needed to read and check it. A point is
one run. Its directory is named by the digest of its configuration, so a point that occurs in
several files is trained once, and a sweep that is started again finds its finished runs.
"""

import contextlib
import difflib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml

from ligr_jax.atomic import read_text
from ligr_jax.config import Config, ConfigError, digest, join_list
from ligr_jax.data.manifest import load_manifest
from ligr_jax.errors import LigrError
from ligr_jax.host_limits import host_cores
from ligr_jax.parallel.probe import Devices, ProbeError, describe_devices
from ligr_jax.progress import clock
from ligr_jax.runs.directory import summary_or_none
from ligr_jax.runs.files import SWEEP
from ligr_jax.runs.listed import read_listed
from ligr_jax.scaling.estimate import Estimate, Estimator, host_speed
from ligr_jax.scaling.ladder import configure
from ligr_jax.scaling.shipped import shipped_sweeps, sweep_text
from ligr_jax.store.stage import stage_file
from ligr_jax.train.feed import MFU

P = TypeVar("P", bound="ResolvedPoint")


@dataclass(frozen=True)
class PointSpec:
    """A point as written in a sweep file.

    Attributes:
        sweeps: names of the sweeps that contain the point.
        assignments: assignments of the point, `name=value`.
    """

    sweeps: tuple[str, ...]
    assignments: tuple[str, ...]


@dataclass(frozen=True)
class ResolvedPoint:
    """One run of a sweep.

    Attributes:
        sweeps: names of the sweeps that contain the point.
        assignments: its assignments, those for all points included.
        config: the resulting configuration.
    """

    sweeps: tuple[str, ...]
    assignments: tuple[str, ...]
    config: Config

    @functools.cached_property
    def name(self) -> str:
        """Name of the run directory: the digest of the configuration."""
        return digest(self.config)

    def to_json(self) -> dict[str, Any]:
        """Return the entry of the point in sweep.json."""
        return {
            "run": self.name,
            "sweeps": list(self.sweeps),
            "assignments": list(self.assignments),
        }


@dataclass(frozen=True)
class Point(ResolvedPoint):
    """One run of a sweep with its cost.

    Attributes:
        cost: estimated cost.
        problem: why the devices cannot train it; "" if nothing is known to speak against it.
    """

    cost: Estimate
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the entry of the point in sweep.json."""
        return {**super().to_json(), "estimate": asdict(self.cost)}


def read_sweep(path: Path) -> list[PointSpec]:
    """Return the points of a sweep file.

    Args:
        path: a file, or the name of a shipped sweep, e.g. "tiny/ladder".

    Returns:
        The product of the parameters' values; the last parameter changes fastest.

    Raises:
        ConfigError: `path` is neither a file nor a shipped sweep, or the file is not a W&B sweep of
            method `grid` with `value` or `values` for each parameter.
    """
    try:
        stage_file(path)
        raw = yaml.safe_load(_text_of_sweep(path))
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        line = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(e, "problem", None) or str(e).splitlines()[0]
        raise ConfigError(f"{path}{line}: not YAML ({problem}); mend that line") from e
    if not isinstance(raw, dict) or not isinstance(raw.get("parameters"), dict):
        raise ConfigError(f"{path}: a sweep file needs `parameters`")
    if raw.get("method") != "grid":
        raise ConfigError(
            f"{path}: method={raw.get('method')}; `ligr sweep` runs grids, "
            "other methods need the W&B server (`wandb sweep`, `wandb agent`)"
        )
    axes = []
    for name, spec in raw["parameters"].items():
        if not isinstance(spec, dict) or not ("value" in spec or spec.get("values")):
            raise ConfigError(f"{path}: parameter {name} needs `value` or a list of `values`")
        values = [spec["value"]] if "value" in spec else spec["values"]
        axes.append([f"{name}={_text(v)}" for v in values])
    sweep = (str(raw.get("name", path.stem)),)
    return [PointSpec(sweep, point) for point in itertools.product(*axes)]


def _text_of_sweep(path: Path) -> str:
    """Return the text of a file or, if no file has this name, of a shipped sweep."""
    name = path.as_posix()
    if path.suffix or path.exists():
        return read_text(path)
    if name in shipped_sweeps():
        return sweep_text(name)
    near = difflib.get_close_matches(name, shipped_sweeps(), 1)
    meant = f"; did you mean {near[0]}?" if near else ";"
    raise ConfigError(
        f"{name}: neither a file nor a shipped sweep{meant} `ligr sweep --list` lists those"
    )


def _text(value: Any) -> str:
    """Return a value of a sweep file as an assignment has it."""
    if isinstance(value, list):
        return join_list(map(_text, value))
    short = f"{value:g}" if isinstance(value, float) else ""
    return short if short and float(short) == value else str(value)


def plan_points(
    specs: Sequence[PointSpec],
    data: Path,
    extra: Sequence[str] = (),
    devices: Callable[[str], Devices] = describe_devices,
    out: Path | None = None,
) -> list[Point]:
    """Configure and estimate all points; the shapes of every model are checked.

    Args:
        specs: points of sweep files; points with equal configurations are merged.
        data: directory of prepared data.
        extra: assignments for every point.
        devices: function from the data type of activations to the devices that will train.
        out: directory of the runs, whose sweep.json has the sizes of points that another runner or
            an earlier call has estimated.

    Returns:
        The points in order of increasing FLOPs.

    Raises:
        ConfigError: a point cannot run; the message has its assignments.
    """
    listed = read_listed(out / SWEEP)["points"] if out else []
    estimates = {p["run"]: p["estimate"] for p in listed if "run" in p and "estimate" in p}
    estimator = Estimator(data, devices, estimates)
    points = []
    for point in resolve_points(specs, data, extra):
        with _naming(point.assignments):
            cost = estimator(point.config)
            problem = estimator.problem(point.config, cost)
        points.append(
            Point(
                sweeps=point.sweeps,
                assignments=point.assignments,
                config=point.config,
                cost=cost,
                problem=problem,
            )
        )
    return sorted(points, key=lambda p: p.cost.flops)


def resolve_points(
    specs: Sequence[PointSpec], data: Path, extra: Sequence[str] = ()
) -> list[ResolvedPoint]:
    """Configure all points, without estimates, which takes milliseconds per point.

    Args:
        specs: points of sweep files; points with equal configurations are merged.
        data: directory of prepared data.
        extra: assignments for every point.

    Returns:
        The points in the order of the files.

    Raises:
        ConfigError: a configuration is invalid; the message has its assignments.
    """
    manifest = load_manifest(data)
    points = dict[str, ResolvedPoint]()
    for spec in specs:
        assignments = (*spec.assignments, *extra)
        with _naming(assignments):
            config = configure(manifest, data, assignments)
        point = ResolvedPoint(sweeps=spec.sweeps, assignments=assignments, config=config)
        known = points.get(point.name)
        if known:
            sweeps = tuple(dict.fromkeys((*known.sweeps, *point.sweeps)))
            point = replace(known, sweeps=sweeps)
        points[point.name] = point
    return list(points.values())


@contextlib.contextmanager
def _naming(assignments: Sequence[str]) -> Iterator[None]:
    """Add the assignments of a point to an error that the point causes."""
    try:
        yield
    except ProbeError:
        raise
    except LigrError as e:
        raise ConfigError(f"point {' '.join(assignments)}: {e}") from e


def select_points(points: Sequence[P], words: Sequence[str]) -> list[P]:
    """Return the points that match every word.

    Args:
        points: points of the sweeps.
        words: each an assignment, the name of a sweep, or the beginning of a run's name.

    Raises:
        ConfigError: no point matches.
    """
    kept = [
        p
        for p in points
        if all(w in p.assignments or w in p.sweeps or p.name.startswith(w) for w in words)
    ]
    if words and not kept:
        raise ConfigError(
            f"--only {' '.join(words)}: no point matches; give assignments as the table shows "
            f"them (e.g. {points[0].assignments[0]}), a sweep's name, or a run's"
        )
    return kept


def calibrate_seconds(points: Sequence[Point], out: Path) -> list[Point]:
    """Scale the estimated seconds by the median ratio of actual to estimated seconds.

    Args:
        points: points of the sweeps.
        out: directory of the runs; those that have finished give the ratios.
    """
    ratios = []
    for point in points:
        seconds = run_seconds(summary_or_none(out / point.name) or {})
        if seconds:
            ratios.append(seconds / point.cost.seconds)
    scale = float(np.median(ratios)) if ratios else 1.0
    return [replace(p, cost=replace(p.cost, seconds=p.cost.seconds * scale)) for p in points]


def run_seconds(summary: dict[str, Any]) -> float:
    """Return the seconds from the start of a run to its summary; 0 if the summary lacks them."""
    parts = ("start_seconds", "seconds", "eval_seconds")
    seconds = [summary.get(k) for k in parts]
    numbers = [s for s in seconds if isinstance(s, int | float)]
    return float(sum(numbers)) if len(numbers) == len(parts) else 0.0


def input_line(points: Sequence[Point], data: Path) -> str:
    """Return the speed of this host's input, measured for the point that wants most tokens.

    Args:
        points: the points, not empty.
        data: their data.
    """
    fastest = max(points, key=lambda point: point.cost.tokens_per_s)
    return (
        f"input: the devices want up to {fastest.cost.tokens_per_s:.1e} tokens/s at {MFU:.0%} MFU "
        f"({fastest.name}); one core of this host makes {host_speed(fastest.config, data):.1e} "
        f"(measured), and it has {host_cores()}"
    )


def format_points(points: Sequence[Point]) -> str:
    """Return a table of the points with their estimated costs, and a line with the total."""
    rows = [
        ("run", "what", "steps", "tokens", "dense", "tables", "FLOPs", "memory", "time", "tokens/s")
    ]
    for p in points:
        cost = p.cost
        rows.append(
            (
                p.name,
                " ".join(p.assignments),
                f"{cost.steps:,}",
                f"{cost.tokens:.2e}",
                f"{cost.dense:,}",
                f"{cost.tables:,}",
                f"{cost.flops:.2e}",
                f"{cost.memory_bytes / 2**20:.0f} MiB",
                clock(cost.seconds),
                f"{cost.tokens_per_s:.1e}",
            )
        )
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(v.ljust(w) for v, w in zip(r, widths)).rstrip() for r in rows]
    lines += [f"{p.name} cannot run here: {p.problem}" for p in points if p.problem]
    flops = sum(p.cost.flops for p in points)
    time = clock(sum(p.cost.seconds for p in points))
    return "\n".join([*lines, f"{len(points)} points, {flops:.2e} FLOPs, about {time}"])
