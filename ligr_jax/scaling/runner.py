"""Training the points of a sweep: processes of `ligr train`, several runners on one directory.

Points that differ only in seed and rates can train as one program (`train.together`).

Who trains a run holds its directory's lock, which the operating system frees when it dies. A runner
takes points that nobody holds, waits for those that others hold, and takes them over where another
runner was killed. Its children live in sessions of their own: killing the runner does not stop
them, and a new runner finds them at work. A signal that stops the runner is passed on: the runs
save, and the runner waits for them.
"""

import fcntl
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from signal import SIGTERM
from typing import Any

from ligr_jax import contents
from ligr_jax.atomic import write_atomically
from ligr_jax.data.manifest import load_manifest
from ligr_jax.data.verify import require_undamaged
from ligr_jax.digests import write_json
from ligr_jax.errors import LigrError
from ligr_jax.exit_status import BUSY, DONE, FAILED, PREEMPTED
from ligr_jax.lock import LOCK
from ligr_jax.parallel.cluster import without_cluster
from ligr_jax.progress import clock
from ligr_jax.runs.directory import (
    clear_error,
    is_locked,
    load_summary,
    read_error,
    summary_or_none,
    write_error,
)
from ligr_jax.runs.files import SWEEP, RunFiles
from ligr_jax.runs.table import read_listed
from ligr_jax.runs.wandb_env import without_run_names
from ligr_jax.scaling.predict import largest_of_ladder, predict_largest
from ligr_jax.scaling.sweep import Point
from ligr_jax.stop import stop_request
from ligr_jax.train.together import groupable

_log = logging.getLogger(__name__)

_LOOK_S = 0.5  # between looks at what a child wrote
_WAIT_S = 2.0  # between looks at points that others hold


def run_sweep(points: Sequence[Point], data: Path, out: Path, jobs: int, together: int = 1) -> int:
    """Train every point that is not finished, in `jobs` processes; return the exit status.

    The status is DONE if all points are finished, PREEMPTED if some were saved and running again
    continues them, else FAILED.

    points: the cheapest first. The NE of a ladder's largest run is predicted before it starts.
    together: so many points at most that differ only in seed and rates train as one program.

    A point that fails does not stop the others: its output is in `<point>/log.txt`, its last words
    in `<point>/error.txt`. A signal lets the running points save, and starts no other point.
    """
    contents.require_no_other(out, contents.SWEEP)
    out.mkdir(parents=True, exist_ok=True)
    _list(points, out)
    if not all(summary_or_none(out / p.name) for p in points):
        require_undamaged(data, load_manifest(data))
    board = _Board(points, data, out, together)
    with stop_request() as stop, ThreadPoolExecutor(jobs) as pool:
        stop.defer()
        stop.on_exit(board.kill)
        stop.on_request(board.stop)
        workers = [pool.submit(board.work) for _ in range(jobs)]
        try:
            # With a limit: a handler runs when the main thread wakes up.
            while wait(workers, _LOOK_S).not_done:
                pass
        except BaseException:
            board.stop()
            raise
        for worker in workers:
            worker.result()
    for name, error in board.failed.items():
        _log.error(f"failed: {name}: {error} (see {RunFiles(out / name).log})")
    unfinished = sum(summary_or_none(out / p.name) is None for p in points)
    if unfinished and (stop.is_set() or board.saved):
        _log.warning(
            f"stopped by {stop.reason or 'a signal to its points'} with "
            f"{len(points) - unfinished} of {len(points)} points finished and {len(board.saved)} "
            "saved part-way; run the same command again to continue"
        )
        return PREEMPTED
    return FAILED if unfinished else DONE


def _list(points: Sequence[Point], out: Path) -> None:
    """Adds the points to sweep.json, which keeps what earlier calls and other runners asked for."""
    path = out / SWEEP
    if all(summary_or_none(out / p.name) for p in points) and not _added(points, path):
        return  # nothing to write, so the disk may be read-only
    with (out / LOCK).open("a", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = {p["run"]: p for p in read_listed(path)["points"] if "run" in p}
        known |= _added(points, path, costs=True)
        write_json(path, {"points": list(known.values())})


def _added(points: Sequence[Point], path: Path, costs: bool = False) -> dict[str, dict[str, Any]]:
    """Entries of sweep.json that points add or change; with `costs`, those of all points."""
    known = {p["run"]: p for p in read_listed(path)["points"] if "run" in p}
    entries = {}
    for point in points:
        before = known.get(point.name, {}).get("sweeps", ())
        sweeps = list(dict.fromkeys((*before, *point.sweeps)))
        if costs or list(before) != sweeps:
            entries[point.name] = point.to_json() | {"sweeps": sweeps}
    return entries


class _Board:
    """What is left, who has it, and how long it will take."""

    def __init__(self, points: Sequence[Point], data: Path, out: Path, together: int) -> None:
        self._data, self._out, self._together = data, out, together
        self._lock = threading.Lock()
        self._number = {p.name: i + 1 for i, p in enumerate(points)}
        self._points, self._left = points, list(points)
        self._largest = largest_of_ladder(points)
        self._running: dict[str, tuple[float, float]] = {}  # when it began, seconds expected
        self._children: set[subprocess.Popen[bytes]] = set()
        self._elsewhere: set[str] = set()
        self._stopping = threading.Event()
        self._expected = self._took = 0.0  # seconds of the points finished here
        self.failed: dict[str, str] = {}
        self.saved: set[str] = set()  # stopped by a signal; running again continues them

    def stop(self) -> None:
        """Let the running points save; start no other."""
        self._stopping.set()
        for child in list(self._children):
            child.terminate()

    def kill(self, *_: object) -> None:
        """End the running points at once; what they saved stays."""
        for child in list(self._children):
            child.kill()

    def work(self) -> None:
        """Trains one group of points after another until none is left."""
        while not self._stopping.is_set():
            group, others = self._take()
            if group:
                try:
                    self._train(group)
                except OSError as e:  # a full disk ends this point, not the sweep
                    with self._lock:
                        self._running.pop(group[0].name, None)
                        for point in group:
                            self._fail(point, str(e))
            elif others:
                self._stopping.wait(_WAIT_S)
            else:
                return

    def _take(self) -> tuple[list[Point], bool]:
        """The cheapest points that nobody trains; else whether other runners have some."""
        with self._lock:
            free = [point for point in list(self._left) if self._is_free(point)]
            if not free:
                return [], bool(self._left)
            first = groupable([p.config for p in free], self._together)[0]
            group = [free[place] for place in first]
            for point in group:
                self._left.remove(point)
            expected = sum(p.cost.seconds for p in group)
            self._running[group[0].name] = (time.monotonic(), expected)
            return group, True

    def _is_free(self, point: Point) -> bool:
        directory = self._out / point.name
        try:
            finished = load_summary(directory) is not None
        except (LigrError, OSError) as e:  # of a finished run: nothing to train
            self._left.remove(point)
            self.failed[point.name] = str(e)
            self._line(point, f"FAILED ({e})", level=logging.ERROR)
            return False
        if finished:
            self._left.remove(point)
            again = point.name in self._elsewhere
            self._line(point, "finished by another runner" if again else "finished before")
            return False
        if is_locked(directory):
            if point.name not in self._elsewhere:
                self._elsewhere.add(point.name)
                self._line(point, "is being trained by another runner")
            return False
        return True

    def _train(self, group: list[Point]) -> None:
        for point in group:
            (self._out / point.name).mkdir(exist_ok=True)
            clear_error(self._out / point.name)
        first = self._out / group[0].name
        if self._largest in group:
            predict_largest(self._largest, self._points, self._out)
        command = [sys.executable, "-m", "ligr_jax", "train", "--data", str(self._data)]
        if len(group) == 1:
            command += ["--out", str(first), *group[0].assignments]
        else:
            listed = [
                {"out": str(self._out / p.name), "assignments": list(p.assignments)} for p in group
            ]
            write_atomically(first / "together.json", json.dumps(listed, indent=1) + "\n")
            command += ["--together", str(first / "together.json")]
        status, last = self._relay(group, command, RunFiles(first).log)
        with self._lock:
            began, expected = self._running.pop(group[0].name)
            if status == BUSY:  # another runner was faster
                self._left += group
                return
            done = [p for p in group if summary_or_none(self._out / p.name)]
            if len(done) == len(group):
                took = time.monotonic() - began
                self._took, self._expected = self._took + took, self._expected + expected
                self._line(group[0], f"finished in {clock(took)}{self._time_left()}", group)
            # SIGTERM ends a process that has not yet begun to listen.
            stopped = status == PREEMPTED or (status == -SIGTERM and self._stopping.is_set())
            for point in group:
                if point in done:
                    continue
                if stopped and not RunFiles(self._out / point.name).error.exists():
                    self.saved.add(point.name)
                else:
                    self._fail(point, f"exit status {status}: {last}")

    def _fail(self, point: Point, error: str) -> None:
        directory = self._out / point.name
        try:
            # Of runs trained together, those that diverged have an error of their own.
            error = read_error(directory) or error
            write_error(directory, error)
        except OSError as e:
            _log.warning(f"cannot write {RunFiles(directory).error}: {e.strerror}")
        self.failed[point.name] = error
        self._line(point, f"FAILED ({error})", level=logging.ERROR)

    def _relay(self, group: list[Point], command: list[str], log: Path) -> tuple[int, str]:
        """Runs a command, its output in `log`; shows its progress; returns status and last line."""
        with log.open("ab") as output:
            place = output.tell()
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=without_run_names(without_cluster(os.environ)),
                start_new_session=True,
            )
        self._children.add(child)
        if self._stopping.is_set():  # a stop was requested before the child was registered
            child.terminate()
        last, ended = "", False
        with log.open("rb") as lines:
            lines.seek(place)
            while True:
                line = lines.readline()
                if line:
                    last = line.decode(errors="replace").strip() or last
                    if last.startswith(("step", "resuming", "checkpoint")):
                        with self._lock:
                            self._line(group[0], last, group)
                elif ended:
                    break
                else:  # what it wrote before it ended is still to be read
                    ended = child.poll() is not None
                    time.sleep(0 if ended else _LOOK_S)
        self._children.discard(child)
        return child.wait(), last

    def _line(
        self, point: Point, text: str, group: Sequence[Point] = (), level: int = logging.INFO
    ) -> None:
        what = " ".join(point.assignments[:2])
        others = f" and {len(group) - 1} with it" if len(group) > 1 else ""
        number = f"{self._number[point.name]}/{len(self._number)}"
        _log.log(level, f"[{number}] {what}{others}: {text}")

    def _time_left(self) -> str:
        """How long the points left will take here, if they miss their estimates as others did."""
        waiting = sum(p.cost.seconds for p in self._left)
        scale = self._took / self._expected
        now = time.monotonic()
        running = [max(0, seconds * scale - (now - t)) for t, seconds in self._running.values()]
        total = (waiting * scale + sum(running)) / (len(running) + 1)
        return f"; about {clock(total)} left for the sweep" if total else ""
