"""Sweep files and their points: a W&B sweep of method `grid`, read and checked without a server.

A point's directory is named by the digest of its configuration, so a point that several files ask
for is one run, and a sweep started again finds what it has done.
"""

import difflib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ligr_jax.atomic import read_text
from ligr_jax.config import Config, ConfigError, digest, join_list
from ligr_jax.data.manifest import load_manifest
from ligr_jax.errors import LigrError
from ligr_jax.parallel.probe import Devices, ProbeError, describe_devices
from ligr_jax.progress import clock
from ligr_jax.runs.directory import summary_or_none
from ligr_jax.scaling.estimate import Estimate, Estimator
from ligr_jax.scaling.ladder import configure
from ligr_jax.scaling.shipped import studies, text_of


@dataclass(frozen=True)
class Asked:
    """A point as files ask for it: their names, and its assignments."""

    sweeps: tuple[str, ...]
    assignments: tuple[str, ...]


@dataclass(frozen=True)
class Point:
    """One run of a sweep: who asks for it, the configuration that makes, and what it will cost."""

    sweeps: tuple[str, ...]
    assignments: tuple[str, ...]
    config: Config
    cost: Estimate

    @property
    def name(self) -> str:
        return digest(self.config)

    def to_json(self) -> dict[str, Any]:
        """What sweep.json keeps of it."""
        return {
            "run": self.name,
            "sweeps": list(self.sweeps),
            "assignments": list(self.assignments),
            "estimate": asdict(self.cost),
        }


def read_sweep(path: Path) -> list[Asked]:
    """The grid of a sweep file's parameters, the last of them changing fastest.

    Args:
        path: a file, or the name of a shipped sweep, e.g. "tiny/ladder".

    Raises:
        ConfigError: not a W&B sweep of method `grid` with `value` or `values` for each parameter,
            or neither a file nor a shipped sweep.
    """
    try:
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
    return [Asked(sweep, point) for point in itertools.product(*axes)]


def _text_of_sweep(path: Path) -> str:
    """The text of a file, or of a shipped sweep where no file has its name."""
    name = path.as_posix()
    if path.suffix or path.exists():
        return read_text(path)
    if name in studies():
        return text_of(name)
    near = difflib.get_close_matches(name, studies(), 1)
    meant = f"; did you mean {near[0]}?" if near else ";"
    raise ConfigError(
        f"{name}: neither a file nor a shipped sweep{meant} `ligr sweep --list` lists those"
    )


def _text(value: Any) -> str:
    if isinstance(value, list):
        return join_list(map(_text, value))
    short = f"{value:g}" if isinstance(value, float) else ""
    return short if short and float(short) == value else str(value)


def plan_points(
    asked: Sequence[Asked],
    data: Path,
    extra: Sequence[str] = (),
    devices: Callable[[str], Devices] = describe_devices,
) -> list[Point]:
    """Configurations and costs of all points, every one shape-checked; the cheapest first.

    extra: assignments for every point.
    devices: The devices that will train, by the type of activations.

    Raises:
        ConfigError: a point that cannot run, named by its assignments.
    """
    estimator, manifest, points = Estimator(data, devices), load_manifest(data), dict[str, Point]()
    for each in asked:
        given = (*each.assignments, *extra)
        try:
            config = configure(manifest, data, given)
            point = Point(each.sweeps, given, config, estimator(config))
        except ProbeError:
            raise
        except LigrError as e:
            raise ConfigError(f"point {' '.join(given)}: {e}") from e
        before = points.get(point.name)
        if before:
            sweeps = tuple(dict.fromkeys((*before.sweeps, *point.sweeps)))
            point = replace(before, sweeps=sweeps)
        points[point.name] = point
    return sorted(points.values(), key=lambda p: p.cost.flops)


def only(points: Sequence[Point], wanted: Sequence[str]) -> list[Point]:
    """The points that match every word: an assignment, or the beginning of a run's name.

    Raises:
        ConfigError: no point does.
    """
    kept = [
        p
        for p in points
        if all(w in p.assignments or w in p.sweeps or p.name.startswith(w) for w in wanted)
    ]
    if wanted and not kept:
        raise ConfigError(
            f"--only {' '.join(wanted)}: no point matches; give assignments as the table shows "
            f"them (e.g. {points[0].assignments[0]}), a sweep's name, or a run's"
        )
    return kept


def corrected(points: Sequence[Point], out: Path) -> list[Point]:
    """The points with the seconds that finished runs of `out` suggest: the median of actual over
    estimated scales all."""
    ratios = []
    for point in points:
        took = seconds_of(summary_or_none(out / point.name) or {})
        if took:
            ratios.append(took / point.cost.seconds)
    scale = float(np.median(ratios)) if ratios else 1.0
    return [replace(p, cost=replace(p.cost, seconds=p.cost.seconds * scale)) for p in points]


def seconds_of(summary: dict[str, Any]) -> float:
    """From a finished run's start to its summary; 0 where it does not say."""
    parts = ("start_seconds", "seconds", "eval_seconds")
    seconds = [summary.get(k) for k in parts]
    numbers = [s for s in seconds if isinstance(s, int | float)]
    return float(sum(numbers)) if len(numbers) == len(parts) else 0.0


def table_of(points: Sequence[Point]) -> str:
    """The points with what they will cost, as aligned text, and what all of them will."""
    rows = [("run", "what", "steps", "tokens", "dense", "tables", "FLOPs", "memory", "time")]
    for p in points:
        c = p.cost
        rows.append(
            (
                p.name,
                " ".join(p.assignments),
                f"{c.steps:,}",
                f"{c.tokens:.2e}",
                f"{c.dense:,}",
                f"{c.tables:,}",
                f"{c.flops:.2e}",
                f"{c.memory_bytes / 2**20:.0f} MiB",
                clock(c.seconds),
            )
        )
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(v.ljust(w) for v, w in zip(r, widths)).rstrip() for r in rows]
    total = sum(p.cost.flops for p in points), clock(sum(p.cost.seconds for p in points))
    return "\n".join([*lines, f"{len(points)} points, {total[0]:.2e} FLOPs, about {total[1]}"])
