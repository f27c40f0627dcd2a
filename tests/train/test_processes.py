"""Several processes are one run: the same numbers, one directory, one end."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ligr_jax.exit_status import PREEMPTED
from ligr_jax.parallel.processes import join_processes
from ligr_jax.train.loop import train
from ligr_jax.train.track import read_rows
from tests.train.runs import SMALL, small_config
from tests.xla import flags

MIXED = "mesh.placement=column,item_id:row,surface:table,dwell_s:table"
SETTINGS = (
    "train.steps=40",
    "train.log_every=1",
    "train.checkpoint_every=25",
    "eval.splits=validation",
    MIXED,
)
# Tables lie across both processes: rows and gradients go between them.
ACROSS = ("mesh.data=1", "mesh.model=8")


def start(
    prepared: Path, run: Path, env: dict[str, str], index: int, port: int
) -> subprocess.Popen[str]:
    """One of two processes with four devices each."""
    mine = {
        "XLA_FLAGS": flags(devices=4),
        "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": str(index),
    }
    command = [sys.executable, "-m", "ligr_jax", "train", "--data", prepared, "--out", run]
    return subprocess.Popen(
        [*map(str, command), *SMALL, *SETTINGS, *ACROSS],
        env={**env, **mine, "LIGR_ALLOCATOR": "none"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def losses(run: Path) -> list[float]:
    return [row["train/loss"] for row in read_rows(run / "metrics.jsonl") if "train/loss" in row]


def test_two_processes_are_one_run_which_one_process_can_finish(
    prepared: Path, child_env: dict[str, str], tmp_path: Path
) -> None:
    """SIGTERM to one stops both with a checkpoint, from which a single process goes on."""
    whole = train(small_config(prepared, *SETTINGS, *ACROSS), tmp_path / "one", lambda _: None)
    run = tmp_path / "two"
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    both = [start(prepared, run, child_env, k, port) for k in range(2)]
    deadline = time.monotonic() + 240
    while len(losses(run)) < 10 and time.monotonic() < deadline:
        assert all(p.poll() is None for p in both), [p.communicate()[0] for p in both]
        time.sleep(0.02)
    both[1].send_signal(signal.SIGTERM)
    said = [p.communicate(timeout=120)[0] for p in both]
    assert [p.returncode for p in both] == [PREEMPTED, PREEMPTED], said
    assert "stopped by SIGTERM" in said[0]
    assert "stopped by SIGTERM" not in said[1]
    stopped = len(losses(run))
    assert 10 <= stopped < 40
    end = train(small_config(prepared, *SETTINGS, "mesh.data=8"), run, lambda _: None)
    one, two = losses(tmp_path / "one"), losses(run)
    assert len(two) == len(one) == 40
    np.testing.assert_allclose(two[:10], one[:10], rtol=1e-6)
    np.testing.assert_allclose(two, one, rtol=1e-4)  # rounding grows from step to step
    assert end["validation/ne"] == pytest.approx(whole["validation/ne"], rel=1e-4)
    assert end["impressions"] == whole["impressions"]


def test_a_coordinator_alone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "localhost:1")
    monkeypatch.delenv("JAX_NUM_PROCESSES", raising=False)
    with pytest.raises(ValueError, match="JAX_NUM_PROCESSES is not a number"):
        join_processes()
