"""A run of two hosts in a store: killed, continued, exported and predicted there."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ligr_jax.exit_status import DONE, PEER_LOST
from ligr_jax.runs.directory import load_summary
from ligr_jax.runs.staged import stage_run
from ligr_jax.serve.run_state import table_sources
from ligr_jax.store.mirror import local_path
from ligr_jax.store.stage import stage
from ligr_jax.tables.export import export
from ligr_jax.tables.exported import ExportedTable
from ligr_jax.train.evaluate import restore
from ligr_jax.train.prediction_file import write_predictions
from tests.ports import free_port
from tests.store.conftest import OnHost
from tests.store.s3 import S3
from tests.store.test_runs import numbers, rows_of
from tests.train.runs import SMALL
from tests.xla import flags

pytestmark = pytest.mark.slow
RUN = "s3://b/runs/pod"
STEP_40 = "b/runs/pod/checkpoints/40"
# Tables lie across both hosts.
MESH = ("mesh.data=1", "mesh.model=2", "mesh.placement=row_wise,surface:table_wise")
SETTINGS = (
    *(*SMALL, *MESH, "model.set_depth=0", "model.features=item_id,surface"),
    # Many steps after the checkpoint whose upload kills a process: the other one is in a step then.
    *("train.steps=80", "train.checkpoint_every=20", "train.log_every=5", "eval.splits="),
)
# The undisturbed run, then the end of the other one and what is read from it.
LAST = f"""
import sys
from pathlib import Path
from ligr_jax.data.manifest import load_manifest
from ligr_jax.parallel.peers import ending_together
from ligr_jax.parallel.processes import join_processes
from ligr_jax.scaling.ladder import configure
from ligr_jax.serve.run_state import table_sources
from ligr_jax.store.mirror import local_path
from ligr_jax.tables.export import export
from ligr_jax.train.evaluate import restore
from ligr_jax.train.loop import train
from ligr_jax.train.prediction_file import write_predictions

data, whole = sys.argv[1:]
run = local_path("{RUN}")
join_processes()
with ending_together():
    config = configure(load_manifest(local_path(data)), data, {SETTINGS})
    train(config, Path(whole))
    train(config, run)
    write_predictions(run, local_path("s3://b/predictions.parquet"), "validation")
    evaluator, state = restore(run)
    export(table_sources(evaluator.layout, state), local_path("s3://b/tables"), bits=8)
"""


class Pod:
    """Two processes of one command, on as many hosts, or sharing the cache of one."""

    def __init__(self, words: Sequence[str], caches: Path, hosts: int) -> None:
        port = free_port()
        self.processes = [
            subprocess.Popen(
                [sys.executable, *words],
                env={
                    **os.environ,
                    "XLA_FLAGS": flags(devices=1),
                    "LIGR_CACHE": str(caches / f"host-{index % hosts}"),
                    "LIGR_ALLOCATOR": "none",
                    "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
                    "JAX_NUM_PROCESSES": "2",
                    "JAX_PROCESS_ID": str(index),
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for index in range(2)
        ]

    def end(self) -> list[str]:
        """Wait for both; return what they printed. Neither survives a failure."""
        try:
            return [process.communicate(timeout=120)[0] for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
                process.communicate()

    @property
    def statuses(self) -> list[int]:
        return [process.returncode for process in self.processes]


def at_first(prefix: str, act: Callable[[], None]) -> Callable[[str, str], str]:
    """A fault of the server: `act` at the first upload of an object, which is then slow."""
    seen: list[str] = []

    def fault(method: str, path: str) -> str:
        if method == "PUT" and path.startswith(prefix) and not seen:
            seen.append(path)
            act()
            return "slow"
        return ""

    return fault


def test_two_hosts_write_one_run_to_a_store(
    data: str,
    s3: S3,
    on_host: OnHost,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process is killed; the numbers are those of an undisturbed run."""
    monkeypatch.setenv("LIGR_LEASE_S", "0.3")
    monkeypatch.setenv("LIGR_LEASE_BEATS", "7")
    command = ["-m", "ligr_jax", "train", "--data", data, "--out", RUN, *SETTINGS]

    # One of two processes of a host is killed: the step that lacks its part is not visible.
    pod = Pod(command, tmp_path / "a", hosts=1)
    with s3.failing(at_first(f"{STEP_40}/state", pod.processes[1].kill)):
        said = pod.end()
    assert pod.statuses == [PEER_LOST, -signal.SIGKILL], said
    stored = s3.below("b/runs/pod/checkpoints/")
    assert "20/digests.json" in stored
    assert "40/digests.json" not in stored

    # Two other hosts train an undisturbed run, and continue the first one.
    whole = tmp_path / "whole"
    pod = Pod(["-c", LAST, data, str(whole)], tmp_path / "b", hosts=2)
    said = pod.end()
    assert pod.statuses == [DONE, DONE], said
    assert any(m == "GET" and "pod/checkpoints/20/state" in path for m, path in s3.requests)
    assert not [name for name in s3.below("b/") if ".part" in name]
    on_host("reader")
    run = local_path(RUN)
    stage_run(run)
    assert rows_of(run / "metrics.jsonl") == rows_of(whole / "metrics.jsonl")
    assert numbers(load_summary(run) or {}) == numbers(load_summary(whole) or {})

    # One process reads what two have written.
    write_predictions(run, tmp_path / "one.parquet", "validation", assignments=MESH)
    stage(local_path("s3://b"), ["predictions.parquet"])
    one, two = (
        pl.read_parquet(path).sort("impression")
        for path in (tmp_path / "one.parquet", local_path("s3://b/predictions.parquet"))
    )
    for name in one.columns:
        np.testing.assert_allclose(two[name].to_numpy(), one[name].to_numpy(), rtol=1e-4)
    evaluator, state = restore(run, assignments=MESH)
    index = export(table_sources(evaluator.layout, state), tmp_path / "tables", bits=8)
    exported = local_path("s3://b/tables")
    stage(exported)
    for name, table in index["tables"].items():
        ids = range(table["rows"])
        rows = ExportedTable.open(tmp_path / "tables", name).rows(ids)
        np.testing.assert_array_equal(ExportedTable.open(exported, name).rows(ids), rows)
