"""Which accelerators a process of a host uses, and how much memory it may take."""

import jax
import pytest

from ligr_jax.config import ConfigError
from ligr_jax.data.schema import BadInput
from ligr_jax.parallel import processes
from ligr_jax.parallel.job_devices import devices_of_jobs
from ligr_jax.parallel.task_devices import local_device_ids

SLURM = {"SLURM_LOCALID": "1", "SLURM_NODEID": "2"}


@pytest.mark.parametrize(
    ("environment", "visible", "expected"),
    [
        ({}, 8, []),
        # One task per node has all GPUs of the node.
        ({"SLURM_LOCALID": "0", "SLURM_NODEID": "1", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}, 8, []),
        # Four tasks share eight GPUs; nodes may have different numbers of tasks.
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "2(x2),4"}, 8, [2, 3]),
        # SLURM shows each task its own GPUs.
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "4(x3)", "SLURM_GPUS_PER_TASK": "2"}, 2, []),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "4(x3)"}, 1, []),
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, 2, [1]),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "4(x3)", "JAX_LOCAL_DEVICE_IDS": "5,7"}, 8, [5, 7]),
    ],
)
def test_processes_of_a_host_share_its_devices(
    environment: dict[str, str], visible: int, expected: list[int]
) -> None:
    assert local_device_ids(environment, visible) == expected


def test_devices_that_cannot_be_shared_are_refused() -> None:
    tasks = SLURM | {"SLURM_STEP_TASKS_PER_NODE": "3(x3)"}
    with pytest.raises(BadInput, match="3 processes on this host cannot share 8 GPUs evenly"):
        local_device_ids(tasks, 8)
    with pytest.raises(BadInput, match="JAX_LOCAL_DEVICE_IDS=a is not a list of numbers"):
        local_device_ids({"JAX_LOCAL_DEVICE_IDS": "a"}, 8)


def test_a_task_of_slurm_joins_with_all_devices_of_its_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """JAX alone would show it the one GPU whose number is SLURM_LOCALID."""
    joined = {}

    def initialize(*arguments: object, **more: object) -> None:
        joined.update(more, arguments=arguments)

    task = {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_NODELIST": "node[1-2]",
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
        "SLURM_PROCID": "1",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "1",
        "CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7",
        "LIGR_PEER_TIMEOUT_S": "7",
    }
    for name, value in task.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    for name in ("wait_for_all", "peers", "silence"):
        monkeypatch.setattr(processes, name, lambda *_: None)
    processes.join_processes()
    assert joined["arguments"] == ("node1:61447", 2, 1)
    assert joined["local_device_ids"] == []
    assert joined["heartbeat_timeout_seconds"] == 7


def test_each_job_of_a_sweep_has_devices_of_its_own() -> None:
    def variables(backend: str, count: int, jobs: int, **given: str) -> list[dict[str, str]]:
        return devices_of_jobs(backend, count, jobs, given)

    assert variables("gpu", 8, 1) == [{}]
    assert variables("cpu", 2, 3) == [{}, {}, {}]
    parts = variables("gpu", 8, 2)
    assert [p["CUDA_VISIBLE_DEVICES"] for p in parts] == ["0,1,2,3", "4,5,6,7"]
    parts = variables("gpu", 3, 3, CUDA_VISIBLE_DEVICES="2,5,GPU-1a")
    assert [p["CUDA_VISIBLE_DEVICES"] for p in parts] == ["2", "5", "GPU-1a"]
    chips = variables("tpu", 4, 2)
    assert [c["TPU_VISIBLE_CHIPS"] for c in chips] == ["0,1", "2,3"]
    assert {c["TPU_CHIPS_PER_PROCESS_BOUNDS"] for c in chips} == {"1,2,1"}
    with pytest.raises(ConfigError, match=r"--jobs 8: .* has 4 devices .* use --jobs 4 or less"):
        variables("gpu", 4, 8)
    with pytest.raises(ConfigError, match="3 of 6 TPU chips form no block"):
        variables("tpu", 6, 2)
