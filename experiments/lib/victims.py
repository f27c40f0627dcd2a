"""Runs that an experiment disturbs, and what is left of them."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ligr_jax.runs.files import RunFiles
from ligr_jax.runs.rows import tail_rows

LIMIT_S = 600.0  # for a child; one that needs longer hangs
_SETTINGS = (
    "model.width=8",
    "model.depth=2",
    "data.seq_len=32",
    "optim.batch=8",
    "train.log_every=1",
    "train.checkpoint_every=10",
    "eval.splits=validation",
    "track.wandb=off",
)
# Runs compile once for all their starts.
_CACHE = {
    "JAX_COMPILATION_CACHE_DIR": str(Path(tempfile.gettempdir()) / f"ligr-faults-{os.getuid()}"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}


class Victims:
    """Starts small runs on prepared data, each in a process of its own.

    Attributes:
        data: prepared data.
        settings: assignments of every run.
    """

    def __init__(self, data: Path, steps: int, eval_every: int) -> None:
        self.data = data
        self.settings = (*_SETTINGS, f"train.steps={steps}", f"train.eval_every={eval_every}")

    def start(
        self, run: Path, devices: int = 1, cluster: tuple[int, int, int] | None = None
    ) -> "subprocess.Popen[str]":
        """Start the training of a run.

        Args:
            run: run directory.
            devices: number of simulated devices.
            cluster: index of the process, number of processes and port of process 0.
        """
        env = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
        if cluster is not None:
            index, count, port = cluster
            env["JAX_COORDINATOR_ADDRESS"] = f"localhost:{port}"
            env |= {"JAX_PROCESS_ID": str(index), "JAX_NUM_PROCESSES": str(count)}
        words = ["train", "--data", str(self.data), "--out", str(run), *self.settings]
        return start(words, env)

    def start_pair(self, run: Path) -> list["subprocess.Popen[str]"]:
        """Start two processes that train one run together."""
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        return [self.start(run, cluster=(index, 2, port)) for index in range(2)]


def start(words: Sequence[str], env: dict[str, str] | None = None) -> "subprocess.Popen[str]":
    """Start `ligr WORDS`, with its output in a pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", "ligr_jax", *words],
        env={**os.environ, **_CACHE, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(child: "subprocess.Popen[str]") -> tuple[int, str]:
    """Wait for a process; return its exit status and its output."""
    output = child.communicate(timeout=LIMIT_S)[0]
    return child.returncode, output


def wait_until(condition: Callable[[], bool], child: "subprocess.Popen[str]") -> None:
    """Return when a condition holds or the process has ended."""
    limit = time.monotonic() + LIMIT_S
    while not condition() and child.poll() is None and time.monotonic() < limit:
        time.sleep(0.001)


def stop_at(child: "subprocess.Popen[str]", run: Path, step: int) -> tuple[int, str]:
    """Send SIGTERM once a step is logged; return exit status and output."""
    wait_until(lambda: last_step(run) >= step, child)
    child.send_signal(signal.SIGTERM)
    return finish(child)


def last_step(run: Path) -> int:
    """Return the last logged step; 0 if there is none."""
    rows = tail_rows(RunFiles(run).metrics, 2**13)
    return int(rows[-1]["step"]) if rows else 0


def saved_steps(run: Path) -> list[int]:
    """Return the steps of complete checkpoints, in increasing order."""
    return sorted(int(p.name) for p in RunFiles(run).checkpoints.glob("*") if p.name.isdigit())


def is_saving(run: Path) -> bool:
    """Return whether a checkpoint is being written."""
    return any(RunFiles(run).checkpoints.glob("*tmp*"))


def is_evaluating(run: Path, every: int) -> bool:
    """Return whether the last row is that of a step whose evaluation is not logged yet."""
    rows = tail_rows(RunFiles(run).metrics, 2**13)
    return bool(rows) and rows[-1]["step"] % every == 0 and "validation/ne" not in rows[-1]


def leaves(run: Path) -> dict[str, Any]:
    """Return the digest of every leaf of the last checkpoint."""
    path = RunFiles(run).checkpoints / str(saved_steps(run)[-1]) / "meta" / "metadata"
    digests: dict[str, Any] = json.loads(path.read_text())["leaves"]
    return digests
