"""State of a run that any host reads from the files of its directory; nothing is written.

A lock can be asked only on the host of its owner. On other hosts a run counts as running while its
files change.
"""

import os
import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ligr_jax.errors import LigrError
from ligr_jax.lock import is_locked, lock_owner
from ligr_jax.runs.columns import metric_name
from ligr_jax.runs.directory import count_failures, load_summary, read_error
from ligr_jax.runs.files import RunFiles
from ligr_jax.runs.rows import tail_rows

# In the order of a run's life.
STATES = ("waiting", "running", "stopped", "failed", "finished")
# A run whose files have not changed for this time (seconds) is not running. Trainers log a line of
# progress every five seconds, but compiling and saving a large model may take minutes.
FRESH_S = 300.0
_OWNER = re.compile(r"host (?P<host>.+), process (?P<process>\d+)$")
_QUALITIES = ("validation/ne", "test/ne")


@dataclass(frozen=True)
class RunState:
    """State of one run.

    Attributes:
        run: Name of the run directory.
        state: One of `STATES`.
        host: Host of the process that trains the run; "" if it is not running or not known.
        process: Number of that process on its host; 0 if it is not known.
        step: Number of steps that are done.
        steps: Number of steps of the whole run; None if it is not known.
        mfu: Share of peak FLOPs per second, since the last logged row.
        input_wait: Share of time that steps waited for data, since the last logged row.
        quality: Newest normalized entropy (validation, else test).
        flops: Training FLOPs so far, as `flops_model`.
        seconds: Seconds of training so far; its share, if the run trains together with others.
        device_seconds: The same times the number of devices; of a finished run also its start and
            its last evaluation.
        devices: Number of devices of a finished run.
        idle_s: Seconds since a file of the run has changed; None if it has no files.
        words: Last line of the error of a failed run.
        failures: Number of failed attempts of a sweep to train the run.
    """

    run: str
    state: str = "waiting"
    host: str = ""
    process: int = 0
    step: int = 0
    steps: int | None = None
    mfu: float | None = None
    input_wait: float | None = None
    quality: float | None = None
    flops: float = 0.0
    seconds: float = 0.0
    device_seconds: float = 0.0
    devices: int = 1
    idle_s: float | None = None
    words: str = ""
    failures: int = 0


def read_state(directory: Path, steps: int | None = None) -> RunState:
    """Return the state of a run.

    Args:
        directory: Directory of the run; it may be absent.
        steps: Number of steps of the whole run, if the caller knows it.
    """
    run, files = directory.name, RunFiles(directory)
    try:
        summary = load_summary(directory)
        error = read_error(directory)
        failures = count_failures(directory)
    except (LigrError, OSError) as e:
        return RunState(run, "failed", steps=steps, words=str(e))
    if summary is not None:
        return _finished(run, summary, failures)
    idle_s = _idle_seconds(files)
    if idle_s is None:
        return RunState(run, steps=steps, failures=failures)
    host, process = _owner(directory)
    rows = tail_rows(files.metrics)
    if _is_running(directory, host, process, idle_s):
        state, error = "running", ""
    elif error:
        state = "failed"
    else:
        state = "stopped" if rows or files.checkpoints.is_dir() else "waiting"
    if state != "running":
        host, process = "", 0
    return RunState(
        run=run,
        state=state,
        host=host,
        process=process,
        step=rows[-1]["step"] if rows else 0,
        steps=steps,
        mfu=_newest(rows, metric_name("mfu")),
        input_wait=_newest(rows, metric_name("input_wait")),
        quality=_newest(rows, *_QUALITIES),
        flops=_newest(rows, metric_name("flops_model")) or 0.0,
        seconds=_newest(rows, metric_name("seconds")) or 0.0,
        device_seconds=_newest(rows, metric_name("device_seconds")) or 0.0,
        idle_s=idle_s,
        words=error.splitlines()[-1] if error else "",
        failures=failures,
    )


def _finished(run: str, summary: dict[str, Any], failures: int) -> RunState:
    seconds = _number(summary, "seconds") or 0.0
    spent = seconds + sum(_number(summary, k) or 0.0 for k in ("start_seconds", "eval_seconds"))
    steps, devices = summary.get("steps"), summary.get("devices") or 1
    return RunState(
        run=run,
        state="finished",
        step=steps or 0,
        steps=steps,
        quality=next((q for k in _QUALITIES if (q := _number(summary, k)) is not None), None),
        flops=_number(summary, "flops_model") or 0.0,
        seconds=seconds,
        device_seconds=spent * devices,
        devices=devices,
        failures=failures,
    )


def _is_running(directory: Path, host: str, process: int, idle_s: float) -> bool:
    if not host:  # an earlier release wrote no owner
        return is_locked(directory)
    if host != socket.gethostname():
        return idle_s < FRESH_S
    # The lock is asked only if its owner lives, because asking holds it for a moment.
    return _is_alive(process) and is_locked(directory)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # a process of another user
        pass
    return True


def _owner(directory: Path) -> tuple[str, int]:
    """Return host and process of the newest lock; "" and 0 if they are not known."""
    match = _OWNER.match(lock_owner(directory))
    return (match["host"], int(match["process"])) if match else ("", 0)


def _idle_seconds(files: RunFiles) -> float | None:
    """Return the seconds since a file of the run has changed; None if there is none."""
    times = []
    for path in (files.metrics, files.log, files.checkpoints, files.lock, files.config):
        try:
            times.append(path.stat().st_mtime)
        except FileNotFoundError:
            continue
    return max(0.0, time.time() - max(times)) if times else None


def _newest(rows: list[dict[str, Any]], *names: str) -> float | None:
    """Return the value of the first of these metrics that is known, in the newest row with it."""
    for name in names:
        for row in reversed(rows):
            if (value := _number(row, name)) is not None:
                return value
    return None


def _number(values: dict[str, Any], name: str) -> float | None:
    value = values.get(name)
    return float(value) if isinstance(value, int | float) else None
