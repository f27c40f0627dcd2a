"""Runner of a sweep: trains its points in child processes of `ligr train`.

Points that differ only in seed and learning rates can be trained as one program
(`ligr_jax.train.vmapped`).

Several runners may work in one directory. The process that trains a run locks its directory; the
operating system releases the lock when the process ends. A runner trains the points that are not
locked, and waits for the others, in case the process that trains them is killed. Each child has its
own session, so it survives a runner that is killed, and the next runner waits for it. A signal that
stops the runner is forwarded to its children; the runner waits until they have saved.
"""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from signal import SIGTERM

from ligr_jax import contents
from ligr_jax.atomic import write_atomically
from ligr_jax.config import ConfigError
from ligr_jax.data.manifest import load_manifest
from ligr_jax.data.verify import require_undamaged
from ligr_jax.errors import LigrError
from ligr_jax.exit_status import BUSY, DONE, FAILED, PREEMPTED
from ligr_jax.parallel.cluster import without_cluster
from ligr_jax.progress import clock
from ligr_jax.runs.directory import (
    add_failure,
    clear_error,
    count_failures,
    load_summary,
    read_error,
    summary_or_none,
    write_error,
)
from ligr_jax.runs.files import RunFiles
from ligr_jax.runs.staged import stage_runs, trained_runs
from ligr_jax.runs.state import read_state
from ligr_jax.runs.sweep_state import seconds_left
from ligr_jax.runs.wandb_alert import send_alert
from ligr_jax.runs.wandb_env import without_run_names
from ligr_jax.scaling.predict import largest_of_ladders, predict_largest, with_its_seeds
from ligr_jax.scaling.record_points import record_points
from ligr_jax.scaling.sweep import Point
from ligr_jax.stop import stop_request
from ligr_jax.store.lease import lease_interval
from ligr_jax.store.mirror import uri_of
from ligr_jax.store.publish import publish
from ligr_jax.train.vmapped import plan_run_batches

_log = logging.getLogger(__name__)

_POLL_S = 0.5  # interval at which the output of a child is read
_WAIT_S = 2.0  # interval at which points of other runners are checked


def run_sweep(
    points: Sequence[Point],
    data: Path,
    out: Path,
    jobs: int,
    together: int = 1,
    *,
    retries: int = 1,
    environments: Sequence[Mapping[str, str]] = (),
) -> int:
    """Train all points that are not finished.

    A point that fails does not stop the others; its output is in `POINT/log.txt`, and the last line
    of it in `POINT/error.txt`. It is tried again after the others. Failed attempts are counted in
    `POINT/failures.txt`, so that other runners and later calls do not try it more often. After a
    signal the running points save, and no other point starts. The NE of a ladder's largest run is
    predicted before that run starts.

    Args:
        points: points in the order in which they start, the cheapest first.
        data: directory of prepared data.
        out: directory of the runs.
        jobs: number of processes that train at the same time.
        together: largest number of points that are trained as one program.
        retries: how often a point that failed is tried again.
        environments: environment variables of the processes of each job, [jobs]; default: none.

    Returns:
        The exit status: DONE if all points are finished, PREEMPTED if some were saved and the same
        command continues them, else FAILED.

    Raises:
        LigrError: `out` has the output of another command, or the data are damaged.
        ConfigError: a point that is not finished cannot train on the devices of this machine.
    """
    contents.require_no_other(out, contents.SWEEP)
    stage_runs(out)
    _require_possible([p for p in points if summary_or_none(out / p.name) is None], len(points))
    out.mkdir(parents=True, exist_ok=True)
    record_points(points, out)
    if not all(summary_or_none(out / p.name) for p in points):
        require_undamaged(data, load_manifest(data))
    scheduler = _Scheduler(points, data, out, together, retries)
    with stop_request() as stop, ThreadPoolExecutor(jobs) as pool:
        stop.defer()
        stop.on_exit(scheduler.kill)
        stop.on_request(scheduler.stop)
        workers = [
            pool.submit(scheduler.work, environment)
            for environment in (environments or [{} for _ in range(jobs)])
        ]
        try:
            # The wait has a timeout because signal handlers run in the main thread.
            while wait(workers, _POLL_S).not_done:
                pass
        except BaseException:
            scheduler.stop()
            raise
        for worker in workers:
            worker.result()
    for name, error in scheduler.failed.items():
        _log.error(f"failed: {name}: {error} (see {RunFiles(out / name).log})")
    unfinished = sum(summary_or_none(out / p.name) is None for p in points)
    saved = len(scheduler.saved)
    if unfinished and (stop.is_set() or saved):
        _log.warning(
            f"stopped by {stop.reason or 'a signal to its points'} with "
            f"{len(points) - unfinished} of {len(points)} points finished and {saved} "
            "saved part-way; run the same command again to continue"
        )
        return PREEMPTED
    return FAILED if unfinished else DONE


def _require_possible(points: Sequence[Point], count: int) -> None:
    """Refuse points that cannot train on the devices of this machine.

    Args:
        points: points that are not finished.
        count: number of all points.
    """
    impossible = [p for p in points if p.problem]
    if impossible:
        lines = "\n".join(
            f"  {p.name} ({' '.join(p.assignments)}): {p.problem}" for p in impossible
        )
        raise ConfigError(
            f"{len(impossible)} of {count} points cannot train on this machine; nothing was "
            f"started:\n{lines}\nchange them, or select the other points with --only"
        )


def _flops_of(point: Point) -> float:
    return point.cost.flops


class _Scheduler:
    """Assigns points to the threads of a runner and starts their processes.

    Attributes:
        failed: error of each point that failed, by name.
        saved: names of the points that a signal stopped and that the same command continues.
    """

    def __init__(
        self, points: Sequence[Point], data: Path, out: Path, together: int, retries: int
    ) -> None:
        self._points = points
        self._data = data
        self._out = out
        self._together = together
        self._retries = retries
        # An object store is asked less often than a file system, but before a lease gets stale.
        self._wait_s = _WAIT_S if uri_of(out) is None else lease_interval() / 2
        self._lock = threading.Lock()
        self._number = {p.name: i + 1 for i, p in enumerate(points)}
        self._remaining = list(points)
        self._largest = largest_of_ladders(points, _flops_of)
        self._running: dict[str, tuple[float, float]] = {}  # start time, estimated seconds
        self._children: set[subprocess.Popen[bytes]] = set()
        self._elsewhere: set[str] = set()  # points that another runner has trained or is training
        self._alerts: list[tuple[Point, str]] = []  # points given up, whose users are not informed
        self._stopping = threading.Event()
        # Seconds of the points that this runner finished.
        self._estimated_s = 0.0
        self._actual_s = 0.0
        self.failed: dict[str, str] = {}
        self.saved: set[str] = set()

    def stop(self) -> None:
        """Request the running points to save, and start no other."""
        self._stopping.set()
        for child in list(self._children):
            child.terminate()

    def kill(self, *_: object) -> None:
        """Kill the running points; their checkpoints remain."""
        for child in list(self._children):
            child.kill()

    def work(self, environment: Mapping[str, str]) -> None:
        """Train one group of points after another until none remains; runs in each thread.

        Args:
            environment: environment variables of the processes that this thread starts.
        """
        while not self._stopping.is_set():
            group, others = self._take()
            if group:
                try:
                    self._train(group, environment)
                except OSError as e:  # a full disk fails this point, not the sweep
                    with self._lock:
                        self._running.pop(group[0].name, None)
                        for point in group:
                            self._fail(point, str(e))
                self._send_alerts()
            elif others:
                self._stopping.wait(self._wait_s)
            else:
                return

    def _take(self) -> tuple[list[Point], bool]:
        """Take the next points to train.

        Returns:
            The first points that no process trains, which train as one program; and whether points
            remain, here or in other runners.
        """
        with self._lock:
            trained = trained_runs(self._out, [point.name for point in self._remaining])
            free = [p for p in list(self._remaining) if self._is_free(p, p.name in trained)]
            if not free:
                return [], bool(self._remaining)
            first = plan_run_batches([p.config for p in free], self._together)[0]
            group = [free[index] for index in first]
            for point in group:
                self._remaining.remove(point)
            estimated = sum(p.cost.seconds for p in group)
            self._running[group[0].name] = (time.monotonic(), estimated)
            return group, True

    def _is_free(self, point: Point, is_trained: bool) -> bool:
        """Return whether a point is to be trained now; a finished one no longer remains.

        Args:
            point: a point that remains.
            is_trained: whether a process trains it.
        """
        directory = self._out / point.name
        try:
            finished = load_summary(directory) is not None
        except (LigrError, OSError) as e:  # the run has finished, but its summary is damaged
            self._remaining.remove(point)
            self.failed[point.name] = str(e)
            self._log_point(point, f"FAILED ({e})", level=logging.ERROR)
            return False
        if finished:
            self._remaining.remove(point)
            by_other = point.name in self._elsewhere
            self._log_point(point, "finished by another runner" if by_other else "finished before")
            return False
        if is_trained:
            if point.name not in self._elsewhere:
                self._elsewhere.add(point.name)
                self._log_point(point, "is being trained by another runner")
            return False
        failures = count_failures(directory)
        if failures > self._retries:
            self._remaining.remove(point)
            self._give_up(point, failures, read_error(directory))
            return False
        return True

    def _train(self, group: list[Point], environment: Mapping[str, str]) -> None:
        """Train points as one program, in a child process, and record what became of them."""
        for point in group:
            (self._out / point.name).mkdir(exist_ok=True)
            clear_error(self._out / point.name)
        first = self._out / group[0].name
        for name, largest in self._largest.items():
            if any(p in group for p in with_its_seeds(largest, self._points)):
                path = self._out / name
                predict_largest(largest, self._points, path, _flops_of(largest))
        command = [sys.executable, "-m", "ligr_jax", "train", "--data", str(self._data)]
        if len(group) == 1:
            command += ["--out", str(first), *group[0].assignments]
        else:
            entries = [
                {"out": str(self._out / p.name), "assignments": list(p.assignments)} for p in group
            ]
            write_atomically(first / "together.json", json.dumps(entries, indent=1) + "\n")
            command += ["--together", str(first / "together.json")]
        status, last = self._relay(group, command, RunFiles(first).log, environment)
        publish(RunFiles(first).log)
        with self._lock:
            began, estimated = self._running.pop(group[0].name)
            if status == BUSY:  # another runner has locked a point since `_take`
                self._remaining += group
                return
            done = [p for p in group if summary_or_none(self._out / p.name)]
            if len(done) == len(group):
                seconds = time.monotonic() - began
                self._actual_s += seconds
                self._estimated_s += estimated
                self._log_point(group[0], f"finished in {clock(seconds)}{self._time_left()}", group)
            # SIGTERM kills a process that has not installed its handlers yet.
            stopped = status == PREEMPTED or (status == -SIGTERM and self._stopping.is_set())
            for point in group:
                if point in done:
                    continue
                if stopped and not RunFiles(self._out / point.name).error.exists():
                    self.saved.add(point.name)
                else:
                    self._fail(point, f"exit status {status}: {last}")

    def _fail(self, point: Point, error: str) -> None:
        """Record and log that a point failed; it remains if it is to be tried again."""
        directory = self._out / point.name
        failures = self._retries + 1  # if they cannot be counted, the point is not tried again
        try:
            # Runs that diverged in a program of several runs have written their own error.
            error = read_error(directory) or error
            failures = add_failure(directory, error)
            write_error(directory, error)
        except (OSError, LigrError) as e:
            _log.warning(f"cannot write into {directory}: {e}")
        if failures > self._retries:
            self._give_up(point, failures, error)
            self._alerts.append((point, self.failed[point.name]))
        else:
            self._remaining.append(point)
            text = f"FAILED ({error}); it is tried again after the other points"
            self._log_point(point, text, level=logging.WARNING)

    def _give_up(self, point: Point, failures: int, error: str) -> None:
        """Note that a point is not tried again."""
        times = "once" if failures == 1 else f"{failures} times"
        self.failed[point.name] = (
            f"{error} (failed {times}; correct the cause, then --retries {failures} tries it again)"
        )
        self._log_point(point, f"FAILED {times} ({error})", level=logging.ERROR)

    def _send_alerts(self) -> None:
        """Inform the users of W&B of points that this runner has given up; it may take a minute."""
        with self._lock:
            alerts, self._alerts = self._alerts, []
        for point, error in alerts:
            text = f"{' '.join(point.assignments)}: {error}"
            send_alert(self._out / point.name, point.config, "Retries exhausted", text)

    def _relay(
        self, group: list[Point], command: list[str], log: Path, environment: Mapping[str, str]
    ) -> tuple[int, str]:
        """Run a command and log its progress.

        Args:
            group: points that the command trains.
            command: program and arguments.
            log: file that the output is appended to.
            environment: environment variables that the command gets in addition.

        Returns:
            The exit status and the last line of the output.
        """
        with log.open("ab") as output:
            start = output.tell()
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=without_run_names(without_cluster({**os.environ, **environment})),
                start_new_session=True,
            )
        self._children.add(child)
        if self._stopping.is_set():  # a stop was requested before the child was registered
            child.terminate()
        last, ended = "", False
        with log.open("rb") as lines:
            lines.seek(start)
            while True:
                line = lines.readline()
                if line:
                    last = line.decode(errors="replace").strip() or last
                    if last.startswith(("step", "resuming", "checkpoint")):
                        with self._lock:
                            self._log_point(group[0], last, group)
                elif ended:
                    break
                else:  # read once more after the end: output may have come since the last read
                    ended = child.poll() is not None
                    time.sleep(0 if ended else _POLL_S)
        self._children.discard(child)
        return child.wait(), last

    def _log_point(
        self, point: Point, text: str, group: Sequence[Point] = (), level: int = logging.INFO
    ) -> None:
        """Log a line about a point; `group` is the points trained with it, itself included."""
        assignments = " ".join(point.assignments[:2])
        others = f" and {len(group) - 1} with it" if len(group) > 1 else ""
        number = f"{self._number[point.name]}/{len(self._number)}"
        _log.log(level, f"[{number}] {assignments}{others}: {text}")

    def _time_left(self) -> str:
        """Return words on the time left with all runners of this directory.

        Estimates are scaled by actual / estimated seconds of the points that this runner finished.
        Points that other runners train, and their processes, are found in the run directories.
        """
        scale = self._actual_s / self._estimated_s
        now = time.monotonic()
        left = [max(0, seconds * scale - (now - t)) for t, seconds in self._running.values()]
        states = [read_state(self._out / p.name, p.cost.steps) for p in self._remaining]
        for point, state in zip(self._remaining, states):
            if state.state != "finished":
                left.append(seconds_left(state, point.cost.seconds, scale) or 0.0)
        elsewhere = {(s.host, s.process) for s in states if s.state == "running"}
        total = sum(left) / (len(self._running) + 1 + len(elsewhere))
        return f"; about {clock(total)} left for the sweep" if total else ""
