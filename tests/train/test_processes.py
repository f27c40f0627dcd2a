"""Several processes are one run: equal numbers, one directory, and they end together."""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ligr_jax.data.schema import BadInput
from ligr_jax.exit_status import FAILED, PREEMPTED
from ligr_jax.parallel.processes import join_processes
from ligr_jax.runs.rows import read_rows
from ligr_jax.train.loop import train
from ligr_jax.train.prediction_file import write_predictions
from tests.ports import free_port
from tests.train.runs import SMALL, small_config
from tests.xla import flags

pytestmark = pytest.mark.slow

MIXED = "mesh.placement=column_wise,item_id:row_wise,surface:table_wise,dwell_s:table_wise"
SETTINGS = (
    "train.steps=40",
    "train.log_every=1",
    "train.checkpoint_every=25",
    "eval.splits=validation",
    "model.features=item_id,surface,dwell_s",
    "model.set_depth=0",
    MIXED,
)
# Tables lie across both processes: rows and gradients go between them.
ACROSS = ("mesh.data=1", "mesh.model=4")


def start(
    prepared: Path, run: Path, env: dict[str, str], index: int, port: int, *more: str
) -> subprocess.Popen[str]:
    """Start one of two processes that train."""
    command = ["train", "--data", str(prepared), "--out", str(run)]
    return ligr([*command, *SMALL, *SETTINGS, *ACROSS, *more], env, index, port)


def ligr(words: Sequence[str], env: dict[str, str], index: int, port: int) -> subprocess.Popen[str]:
    """Start one of two processes of `ligr`, with two devices each."""
    mine = {
        "XLA_FLAGS": flags(devices=2),
        "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": str(index),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "ligr_jax", *words],
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
    """A signal to one stops both with a checkpoint, from which a single process continues."""
    whole = train(small_config(prepared, *SETTINGS, *ACROSS), tmp_path / "one")
    run = tmp_path / "two"
    port = free_port()
    both = [start(prepared, run, child_env, k, port) for k in range(2)]
    deadline = time.monotonic() + 240
    while len(losses(run)) < 10 and time.monotonic() < deadline:
        assert all(p.poll() is None for p in both), [p.communicate()[0] for p in both]
        time.sleep(0.02)
    both[1].send_signal(signal.SIGUSR1)
    said = [p.communicate(timeout=120)[0] for p in both]
    assert [p.returncode for p in both] == [PREEMPTED, PREEMPTED], said
    assert "stopped by SIGUSR1 in process 1 at step" in said[0]
    assert "stopped by" not in said[1]
    stopped = len(losses(run))
    assert 10 <= stopped < 40
    end = train(small_config(prepared, *SETTINGS, "mesh.data=4"), run)
    one, two = losses(tmp_path / "one"), losses(run)
    assert len(two) == len(one) == 40
    np.testing.assert_allclose(two[:10], one[:10], rtol=1e-6)
    np.testing.assert_allclose(two, one, rtol=1e-4)  # rounding grows from step to step
    assert end["validation/ne"] == pytest.approx(whole["validation/ne"], rel=1e-4)
    assert end["impressions"] == whole["impressions"]
    # Each process predicts a part of a split, and process 0 writes one file.
    write_predictions(run, tmp_path / "one.parquet")
    command = ["predict", str(run), "--out", str(tmp_path / "out" / "two.parquet"), *ACROSS]
    port = free_port()
    both = [ligr(command, child_env, k, port) for k in range(2)]
    said = [p.communicate(timeout=240)[0] for p in both]
    assert [p.returncode for p in both] == [0, 0], said
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["two.parquet"]
    assert "two.parquet: predictions of step 40 for" in said[0]
    assert "two.parquet" not in said[1]
    one, two = (
        pl.read_parquet(path).sort("impression")
        for path in (tmp_path / "one.parquet", tmp_path / "out" / "two.parquet")
    )
    for name in one.columns:
        np.testing.assert_allclose(two[name].to_numpy(), one[name].to_numpy(), rtol=1e-4)


def test_an_error_in_one_process_ends_all(
    prepared: Path, child_env: dict[str, str], tmp_path: Path
) -> None:
    """With the same status, and with its message in each of them."""
    port = free_port()
    first = start(prepared, tmp_path / "two", child_env, 0, port)
    second = start(prepared, tmp_path / "two", child_env, 1, port, "train.seed=7")
    said = [process.communicate(timeout=120)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [FAILED, FAILED], said
    assert "(process 0 of 2): process 1: the configuration differs" in said[0]
    assert "(process 1 of 2): the configuration differs from that of process 0" in said[1]
    assert all("train.seed: there 0, here 7" in text for text in said)


def test_a_signal_to_one_process_ends_all_before_the_first_step(
    prepared: Path, child_env: dict[str, str], tmp_path: Path
) -> None:
    port = free_port()
    both = [start(prepared, tmp_path / "two", child_env, k, port) for k in range(2)]
    while not (tmp_path / "two" / "config.json").exists():
        assert all(p.poll() is None for p in both), [p.communicate()[0] for p in both]
        time.sleep(0.02)
    both[1].send_signal(signal.SIGTERM)
    said = [p.communicate(timeout=120)[0] for p in both]
    assert [p.returncode for p in both] == [PREEMPTED, PREEMPTED], said
    assert "(process 0 of 2): process 1: stopped by SIGTERM" in said[0]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("JAX_NUM_PROCESSES", "", "JAX_NUM_PROCESSES is not a number"),
        ("JAX_PROCESS_ID", "2", "JAX_PROCESS_ID=2 is not below JAX_NUM_PROCESSES=2"),
        ("LIGR_PEER_TIMEOUT_S", "0", "LIGR_PEER_TIMEOUT_S=0"),
    ],
)
def test_a_malformed_environment_is_refused(
    name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "localhost:1")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    monkeypatch.setenv("JAX_PROCESS_ID", "0")
    monkeypatch.setenv(name, value)
    with pytest.raises(BadInput, match=words):
        join_processes()


def test_a_task_alone_joins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """`srun -n1`; a number of tasks that is none is refused."""
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    join_processes()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "many")
    with pytest.raises(BadInput, match="SLURM_STEP_NUM_TASKS='many'"):
        join_processes()
