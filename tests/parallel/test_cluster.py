"""The clusters that launchers describe in the environment of a process."""

from typing import Any

import jax
import pytest
from jax._src.clusters.cloud_tpu_cluster import GceTpuCluster

from ligr_jax.parallel import processes
from ligr_jax.parallel.cluster import expects_peers, without_cluster

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[3-4]",
    "SLURM_NTASKS": "2",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "1",
}
TRAINJOB = {
    "JAX_COORDINATOR_ADDRESS": "job-node-0-0.job:1234",
    "JAX_NUM_PROCESSES": "2",
    "JAX_PROCESS_ID": "1",
}


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `join_processes` passes to JAX."""
    calls: list[dict[str, Any]] = []

    def initialize(
        address: str | None, count: int | None, index: int | None, **options: Any
    ) -> None:
        calls.append({"address": address, "count": count, "index": index, **options})

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    for name in ("wait_for_all", "peers"):
        monkeypatch.setattr(processes, name, lambda *_: None)
    return calls


def test_a_described_cluster_is_joined_as_described(
    joined: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """JobSet and TrainJob run in pods whose TPU variables describe the same cluster."""
    for name, value in {**TRAINJOB, "TPU_WORKER_HOSTNAMES": "a,b"}.items():
        monkeypatch.setenv(name, value)
    processes.join_processes()
    (call,) = joined
    assert (call["address"], call["count"], call["index"]) == ("job-node-0-0.job:1234", 2, 1)


@pytest.mark.parametrize(("hosts", "joins"), [(1, False), (4, True)])
def test_a_tpu_vm_without_variables_asks_its_metadata(
    hosts: int, joins: bool, joined: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GceTpuCluster, "is_env_present", lambda: True)
    monkeypatch.setattr(GceTpuCluster, "get_process_count", lambda: hosts)
    processes.join_processes()
    assert [call["address"] for call in joined] == [None] * joins
    monkeypatch.setenv("TPU_VISIBLE_CHIPS", "0")
    processes.join_processes()
    assert len(joined) == joins


@pytest.mark.parametrize(
    "environment",
    [
        SLURM,
        TRAINJOB,
        {"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "0"},
        {"TPU_PROCESS_ADDRESSES": "a:1,b:1"},
        {"MEGASCALE_NUM_SLICES": "2", "TPU_WORKER_HOSTNAMES": "a"},
    ],
)
def test_children_of_a_runner_do_not_join(environment: dict[str, str]) -> None:
    assert expects_peers(environment)
    assert not expects_peers(without_cluster(environment))
