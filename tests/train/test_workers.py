"""`data.workers`: loader processes change no number and leave nothing; a killed one is an error."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ligr_jax.exit_status import PREEMPTED
from ligr_jax.runs.rows import read_rows
from ligr_jax.train.loop import train
from tests.train.runs import SMALL, small_config

pytestmark = pytest.mark.slow

# A model of few layers and tables, for the processes that a test starts.
TINY = (*SMALL, "model.features=item_id,surface", "model.set_depth=0", "train.steps=1000000")


def test_any_number_of_loader_processes_gives_the_same_run(prepared: Path, tmp_path: Path) -> None:
    losses = {}
    for workers in (0, 1, 3):
        out = tmp_path / str(workers)
        short = ("train.steps=4", "train.log_every=1", "eval.splits=", "model.set_depth=0")
        train(small_config(prepared, *short, f"data.workers={workers}"), out)
        rows = read_rows(out / "metrics.jsonl")
        losses[workers] = [row["train/loss"] for row in rows if "train/loss" in row]
    assert len(losses[0]) == 4
    assert losses[0] == losses[1] == losses[3]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are listed in /proc")
def test_a_killed_loader_process_ends_the_run_with_a_remedy(
    prepared: Path, tmp_path: Path, child_env: dict[str, str]
) -> None:
    words = ["train", "--data", prepared, "--out", tmp_path / "run", *TINY]
    run = subprocess.Popen(
        [sys.executable, "-m", "ligr_jax", *words, "data.workers=1"],
        env=child_env,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stderr is not None
    for line in run.stderr:
        if line.startswith("step"):
            break
    os.kill(loader_of(run.pid), signal.SIGKILL)
    _, said = run.communicate(timeout=300)
    assert run.returncode == 1
    assert "data.workers=1: a loader process ended with status -9" in said
    assert "run the same command again to continue, or set data.workers=0" in said


@pytest.mark.skipif(not Path("/dev/shm").exists(), reason="shared memory has no directory")
def test_a_stopped_run_leaves_no_loader_process_and_no_shared_memory(
    prepared: Path, tmp_path: Path, child_env: dict[str, str]
) -> None:
    before = set(os.listdir("/dev/shm"))
    words = ["train", "--data", prepared, *TINY, "data.workers=1"]
    runs = {
        number: subprocess.Popen(
            [sys.executable, "-m", "ligr_jax", *words, "--out", tmp_path / number.name],
            env=child_env,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    for number, run in runs.items():
        assert run.stderr is not None
        for line in run.stderr:
            if line.startswith("step"):
                break
        os.killpg(run.pid, number)  # as a terminal or a scheduler does
        _, said = run.communicate(timeout=300)  # children have ended too: they hold stderr
        assert run.returncode == PREEMPTED
        assert f"stopped by {number.name}" in said.splitlines()[-1]
        for word in ("resource_tracker", "leaked", "Traceback", "Warning"):
            assert word not in said
    # Loaders of tests that run at the same time have segments too, but remove them.
    created = set(os.listdir("/dev/shm")) - before
    for _ in range(1200):
        created &= set(os.listdir("/dev/shm"))
        if not created:
            break
        time.sleep(0.1)
    assert not created


def loader_of(pid: int) -> int:
    """The process started by multiprocessing that is not its resource tracker."""
    for _ in range(100):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
        time.sleep(0.1)
    raise AssertionError("no loader process was started")
