"""Sweeps: a W&B sweep file, run without a server.

A point's directory is named by the digest of its configuration, so a sweep started again skips what
is finished and goes on with what is not; two runners of one sweep never train the same point,
because a run's directory is locked by whoever trains it.
"""

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ligr_jax.atomic import write_atomically
from ligr_jax.config import Config, ConfigError, digest
from ligr_jax.data.records import Records
from ligr_jax.progress import clock
from ligr_jax.scaling.estimate import Estimate, estimate
from ligr_jax.scaling.ladder import configure
from ligr_jax.train.preemption import on_sigterm
from ligr_jax.train.run import BUSY, PREEMPTED

Say = Callable[[str], None]


@dataclass(frozen=True)
class Point:
    """One run of a sweep: what the file says of it, and the configuration that makes."""

    assignments: tuple[str, ...]
    config: Config
    cost: Estimate

    @property
    def name(self) -> str:
        return digest(self.config)


def read_sweep(path: Path) -> tuple[str, list[tuple[str, ...]]]:
    """Name and points of a sweep file: the grid of its parameters, each a list of assignments.

    Raises:
        ConfigError: not a W&B sweep of method `grid` with `value` or `values` for each parameter.
    """
    try:
        raw = yaml.safe_load(path.read_text())
    except yaml.YAMLError as e:
        raise ConfigError(f"{path}: not YAML ({e})") from e
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
    return str(raw.get("name", path.stem)), list(itertools.product(*axes))


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def plan_points(
    assignments: Sequence[tuple[str, ...]], data: Path, extra: Sequence[str] = ()
) -> list[Point]:
    """Configurations and costs of all points, every one shape-checked; the cheapest first.

    Raises:
        ConfigError: a point that cannot run, named by its assignments.
    """
    records = Records(data)
    points = []
    for given in assignments:
        try:
            config = configure(records.manifest, data, (*given, *extra))
            points.append(Point((*given, *extra), config, estimate(config, records)))
        except (ValueError, TypeError) as e:
            raise ConfigError(f"point {' '.join(given)}: {e}") from e
    return sorted(points, key=lambda p: p.cost.flops)


def table_of(points: Sequence[Point]) -> str:
    """The points with what they will cost, as aligned text."""
    rows = [("point", "what", "steps", "tokens", "dense", "tables", "FLOPs", "state")]
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
                f"{c.state_bytes / 2**20:.1f} MiB",
            )
        )
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(v.ljust(w) for v, w in zip(r, widths)).rstrip() for r in rows]
    return "\n".join(lines)


def run_sweep(points: Sequence[Point], data: Path, out: Path, jobs: int, say: Say) -> bool:
    """Trains every point that is not finished, `jobs` at a time; true if all of them are.

    A point that fails does not stop the others: its output is in `<point>/log.txt`, its last words
    in `<point>/error.txt`.
    """
    out.mkdir(parents=True, exist_ok=True)
    listing = {"points": [{"run": p.name, "assignments": list(p.assignments)} for p in points]}
    write_atomically(out / "sweep.json", json.dumps(listing, indent=1) + "\n")
    board = _Board(points, out, say)
    # Told to stop, it lets the running points save themselves and starts no other.
    with on_sigterm(board.stop), ThreadPoolExecutor(jobs) as pool:
        for _ in pool.map(lambda p: _run_point(p, data, out, board), points):
            pass
    for name, error in board.failed.items():
        say(f"failed: {name}: {error} (see {out / name / 'log.txt'})")
    if board.elsewhere:
        say(f"{len(board.elsewhere)} points are being trained by another runner")
    return not board.failed and not board.elsewhere


class _Board:
    """Who is where, how much work is left, and how long it will take."""

    def __init__(self, points: Sequence[Point], out: Path, say: Say) -> None:
        self._say, self._lock = say, threading.Lock()
        self._number = {p.name: i + 1 for i, p in enumerate(points)}
        self._left = sum(p.cost.flops for p in points if not _finished(out / p.name))
        self._began, self._done = time.monotonic(), 0.0
        self.children: set[subprocess.Popen[str]] = set()
        self.stopping = False
        self.failed: dict[str, str] = {}
        self.elsewhere: list[str] = []

    def stop(self) -> None:
        self.stopping = True
        for child in list(self.children):
            child.terminate()

    def line(self, point: Point, text: str) -> None:
        with self._lock:
            label = f"[{self._number[point.name]}/{len(self._number)}]"
            self._say(f"{label} {point.assignments[0]}: {text}")

    def end(self, point: Point, text: str) -> None:
        with self._lock:
            self._done += point.cost.flops
            seconds = time.monotonic() - self._began
            left = max(0.0, self._left - self._done)
        # The first, small points are mostly start-up: they say nothing about the large ones.
        known = self._done > 0.05 * self._left
        note = f"; about {clock(seconds * left / self._done)} left for the sweep" if known else ""
        self.line(point, text + note)


def _finished(directory: Path) -> bool:
    return (directory / "summary.json").exists()


def _run_point(point: Point, data: Path, out: Path, board: _Board) -> None:
    directory = out / point.name
    if _finished(directory):
        board.line(point, "finished before")
        return
    if board.stopping:
        board.failed[point.name] = "not started"
        return
    directory.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "ligr_jax", "train", "--data", str(data)]
    command += ["--out", str(directory), *point.assignments]
    with (directory / "log.txt").open("a") as log:
        status, last = _relay(command, board, log.write, lambda text: board.line(point, text))
    error = directory / "error.txt"
    if status == 0:
        error.unlink(missing_ok=True)
        board.end(point, "finished")
    elif status == BUSY:
        board.elsewhere.append(point.name)
        board.line(point, "is being trained by another runner")
    else:
        last = f"exit status {status}: {last}" if status != PREEMPTED else "preempted; run again"
        write_atomically(error, last + "\n")
        board.failed[point.name] = last
        board.end(point, f"FAILED ({last})")


def _relay(
    command: list[str], board: _Board, keep: Callable[[str], Any], show: Say
) -> tuple[int, str]:
    """Runs a command; keeps and shows what it prints; returns its status and last line."""
    last = ""
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as child:
        board.children.add(child)
        assert child.stdout
        for line in child.stdout:
            keep(line)
            if line.strip():
                last = line.strip()
                if last.startswith(("step", "resuming", "checkpoint")):
                    show(last)
        board.children.discard(child)
        return child.wait(), last
