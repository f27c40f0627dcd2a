"""Several processes that train one run, each with its own devices and its own part of the data.

JAX detects the cluster under SLURM and on Cloud TPU, also of several slices. Elsewhere the
environment describes it (`ligr launch` and Kubeflow's runtime `jax-distributed` set it). Only the
last of these variables differs between the processes:

    JAX_COORDINATOR_ADDRESS=host0:1234    process 0 listens there
    JAX_NUM_PROCESSES=2
    JAX_PROCESS_ID=0

At the start, the processes wait LIGR_JOIN_TIMEOUT_S (300) seconds for each other. After a process
was killed, the others end with status 134: as soon as a collective fails, or otherwise within
LIGR_PEER_TIMEOUT_S (30) seconds.
"""

import os
import socket
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from ligr_jax.data.schema import BadInput
from ligr_jax.messages import silence
from ligr_jax.parallel.cluster import expects_peers
from ligr_jax.parallel.peers import peers
from ligr_jax.parallel.rendezvous import wait_for_all
from ligr_jax.parallel.task_devices import local_device_ids, visible_gpus
from ligr_jax.stop import StopRequest, command_line_request
from ligr_jax.store.mirror import cache_root

_ADDRESS, _COUNT, _INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
_JOIN_TIMEOUT, _PEER_TIMEOUT = "LIGR_JOIN_TIMEOUT_S", "LIGR_PEER_TIMEOUT_S"


def join_processes() -> None:
    """Join the other processes of this run, if there are any, before JAX starts its devices.

    Raises:
        BadInput: The environment names a coordinator, but not the number of processes or the index
            of this one; a number is malformed; or the processes of this host cannot share its
            GPUs evenly.
        PeerMissing: Another process did not start, or it ended.
        WrongCluster: The processes disagree about the cluster, or the address is wrong.
    """
    if os.environ.get(_ADDRESS):
        count, index = _number(_COUNT), _number(_INDEX)
        if index >= count:
            raise BadInput(f"{_INDEX}={index} is not below {_COUNT}={count}; count from 0")
        _initialize(os.environ[_ADDRESS], count, index)
    elif "SLURM_PROCID" in os.environ and expects_peers(os.environ):
        _number("SLURM_STEP_NUM_TASKS", 1)
        from jax._src.clusters import ClusterEnv

        timeout_s = _seconds(_JOIN_TIMEOUT, 300)
        address, tasks, task, _ = ClusterEnv.auto_detect_unset_distributed_params(
            None, None, None, None, None, timeout_s
        )
        _initialize(address, tasks, task)
    elif expects_peers(os.environ) or _is_in_tpu_slice():
        _initialize()  # only JAX can find the address of process 0


def _is_in_tpu_slice() -> bool:
    """Return whether this TPU VM is one host of several, which only its metadata server tells.

    A process that is restricted to some chips of its host, as a runner's children are, trains
    alone.
    """
    from jax._src.clusters.cloud_tpu_cluster import GceTpuCluster

    restricted = {"TPU_VISIBLE_CHIPS", "TPU_VISIBLE_DEVICES"} & os.environ.keys()
    return (
        not restricted and GceTpuCluster.is_env_present() and GceTpuCluster.get_process_count() > 1
    )


def _initialize(
    address: str | None = None, count: int | None = None, index: int | None = None
) -> None:
    """Join; JAX finds its cluster if the address of process 0 is not given."""
    timeout_s, peer_timeout_s = _seconds(_JOIN_TIMEOUT, 300), _seconds(_PEER_TIMEOUT, 30)
    if address is not None and count is not None and index is not None:
        wait_for_all(address, count, index, timeout_s)
    # JAX's preemption service would replace our handler of SIGTERM; `Peers` shares all signals.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        address,
        count,
        index,
        # Without this list JAX would show a task of SLURM one GPU of its node.
        local_device_ids=local_device_ids(os.environ, len(visible_gpus())),
        initialization_timeout=timeout_s,
        heartbeat_timeout_seconds=peer_timeout_s,
    )
    peers()
    if not is_first():
        silence()


def _number(name: str, default: int | None = None) -> int:
    """Return the value of an environment variable that must be a number."""
    text = os.environ.get(name) or ("" if default is None else str(default))
    if not text.isdigit():
        if name in (_COUNT, _INDEX):
            raise BadInput(f"{_ADDRESS} is set, but {name} is not a number: {text!r}; set it too")
        raise BadInput(f"{name}={text!r} is not a number; correct it, or unset it")
    return int(text)


def _seconds(name: str, default: int) -> int:
    seconds = _number(name, default)
    if seconds < 1:
        raise BadInput(f"{name}={seconds} is not a number of seconds above 0")
    return seconds


def is_first() -> bool:
    """Return whether this is process 0, which writes metrics, summaries and messages."""
    return jax.process_index() == 0


def stop_agreed(stop: StopRequest) -> bool:
    """Return whether to stop now; True at the same call in all processes of this run.

    All processes call it at the same points of their work.

    Args:
        stop: The stop request of this process.
    """
    if jax.process_count() == 1:
        return stop.is_set()
    return peers().stop_agreed()


def broadcast_from_first(name: str, text: str) -> str:
    """Return the text of process 0 in all processes.

    Args:
        name: Key of the text, the same in all processes.
        text: Text of this process.
    """
    return peers().broadcast_from_first(name, text) if jax.process_count() > 1 else text


def gather_texts(name: str, text: str) -> list[str]:
    """Return the texts of all processes, in each of them; any thread may call it.

    It is not a collective of the devices, so steps may run meanwhile.

    Args:
        name: Key of the texts, the same in all processes.
        text: Text of this process.
    """
    return peers().gather(name, text) if jax.process_count() > 1 else [text]


def ready(stop: StopRequest) -> None:
    """Return when all processes of this run are ready for the first step.

    Args:
        stop: The stop request of this process, which the processes share from now on.
    """
    stop.defer()
    if jax.process_count() > 1:
        peers().attach(stop, ends=stop is command_line_request())
        peers().wait_until_ready()


def is_first_of_host() -> bool:
    """Return whether this is the process with the lowest index of those that share a cache.

    The processes of a host do, unless each of them has a LIGR_CACHE of its own. It is a collective
    operation: all processes call it.
    """
    caches = _numbers(f"{socket.gethostname()}:{cache_root()}")
    return caches.index(caches[jax.process_index()]) == jax.process_index()


def processes_of_host() -> int:
    """Return the number of processes of this run on this host.

    It is a collective operation: all processes call it.
    """
    hosts = _numbers(socket.gethostname())
    return hosts.count(hosts[jax.process_index()])


def _numbers(name: str) -> list[int]:
    """Return a number for the name that each process gives."""
    if jax.process_count() == 1:
        return [0]
    (numbers,) = all_gather([np.array([zlib.crc32(name.encode())], np.uint32)])
    result: list[int] = numbers.tolist()
    return result


def local_rows(x: Any) -> np.ndarray:
    """Return this process's part of an array whose leading axis is sharded.

    Args:
        x: Array [rows, ...]. A NumPy array is returned unchanged.

    Returns:
        Array [rows of this process, ...].
    """
    if jax.process_count() == 1 or isinstance(x, np.ndarray):
        return np.asarray(x)
    shards = {shard.index[0].start or 0: shard.data for shard in x.addressable_shards}
    return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])


def all_gather(arrays: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    """Concatenate arrays of all processes along their leading axis.

    Args:
        arrays: Arrays [rows, ...] of this process, all with the same number of rows. The number may
            differ between processes.

    Returns:
        Arrays [rows of all processes, ...], in the order of the processes.
    """
    if jax.process_count() == 1:
        return arrays
    counts = multihost_utils.process_allgather(np.array(len(arrays[0])))
    return [_joined(x, counts) for x in arrays]


def _joined(x: np.ndarray, counts: Any) -> np.ndarray:
    # As bytes, because JAX would convert 64-bit numbers to 32 bits.
    raw = np.ascontiguousarray(x).view(np.uint8).reshape(len(x), -1)
    padded = np.zeros((int(max(counts)), raw.shape[1]), np.uint8)
    padded[: len(raw)] = raw
    parts = multihost_utils.process_allgather(padded)
    joined = np.concatenate([part[:n] for part, n in zip(parts, counts)])
    return joined.view(x.dtype).reshape(-1, *x.shape[1:])
