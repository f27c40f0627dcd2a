"""Several processes that run one command together, each with its own devices and part of the data.

JAX finds its cluster itself under SLURM and on Cloud TPU. Elsewhere the environment says who is
where, alike in every process but for the last line:

    JAX_COORDINATOR_ADDRESS=host0:1234    the first process listens there
    JAX_NUM_PROCESSES=2
    JAX_PROCESS_ID=0

Processes wait LIGR_JOIN_TIMEOUT_S (300) seconds for each other at the start. One that is killed is
found missing by the others after LIGR_PEER_TIMEOUT_S (30) seconds, or at once where a collective
breaks; they end with status 134.
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
from ligr_jax.stop import StopRequest, command_line_request

_ADDRESS, _COUNT, _INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
_JOIN_TIMEOUT, _PEER_TIMEOUT = "LIGR_JOIN_TIMEOUT_S", "LIGR_PEER_TIMEOUT_S"


def join_processes() -> None:
    """Join the processes of this run, if there are several. Call it before JAX has devices.

    Raises:
        BadInput: the environment names a coordinator, but not the number of processes or the index
            of this one.
        PeerMissing, WrongCluster: the other processes did not come, or they disagree with this one
            (`ligr_jax.parallel.rendezvous`).
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
    elif expects_peers(os.environ):  # TPU hosts, which JAX asks for their address
        _initialize()


def _initialize(
    address: str | None = None, count: int | None = None, index: int | None = None
) -> None:
    """Join; JAX finds its cluster if the address of process 0 is not given."""
    timeout_s, peer_timeout_s = _seconds(_JOIN_TIMEOUT, 300), _seconds(_PEER_TIMEOUT, 30)
    if address is not None and count is not None and index is not None:
        wait_for_all(address, count, index, timeout_s)
    # `Peers` hears every signal; JAX would hear SIGTERM alone, and take our handler away.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        address,
        count,
        index,
        initialization_timeout=timeout_s,
        heartbeat_timeout_seconds=peer_timeout_s,
    )
    peers()
    if not is_first():
        silence()


def _number(name: str, default: int | None = None) -> int:
    """A number of the environment."""
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
    """Whether this process writes what is written once: metrics, summaries, messages."""
    return jax.process_index() == 0


def stop_agreed(stop: StopRequest) -> bool:
    """Whether to stop now. Several processes call it at the same points of their work, and all of
    them return True at the same call."""
    if jax.process_count() == 1:
        return stop.is_set()
    return peers().stop_agreed()


def from_first(name: str, text: str) -> str:
    """The `text` that process 0 gives; with one process, its own."""
    return peers().from_first(name, text) if jax.process_count() > 1 else text


def ready(stop: StopRequest) -> None:
    """Return when all processes of this run are ready for its first step."""
    stop.defer()
    if jax.process_count() > 1:
        peers().attach(stop, ends=stop is command_line_request())
        peers().wait_until_ready()


def is_first_of_host() -> bool:
    """Whether no process of this run with a lower number is on this host; all call it."""
    if jax.process_count() == 1:
        return True
    host = zlib.crc32(socket.gethostname().encode())
    (hosts,) = gathered([np.array([host], np.uint32)])
    return hosts.tolist().index(host) == jax.process_index()


def own_rows(x: Any) -> np.ndarray:
    """This process's part of an array split over its leading axis; NumPy's stay as they are."""
    if jax.process_count() == 1 or isinstance(x, np.ndarray):
        return np.asarray(x)
    shards = {shard.index[0].start or 0: shard.data for shard in x.addressable_shards}
    return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])


def gathered(arrays: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    """Arrays of equal length, joined with those of all processes along their leading axis."""
    if jax.process_count() == 1:
        return arrays
    counts = multihost_utils.process_allgather(np.array(len(arrays[0])))
    return [_joined(x, counts) for x in arrays]


def _joined(x: np.ndarray, counts: Any) -> np.ndarray:
    # As bytes: JAX would cut 64-bit numbers in half.
    raw = np.ascontiguousarray(x).view(np.uint8).reshape(len(x), -1)
    padded = np.zeros((int(max(counts)), raw.shape[1]), np.uint8)
    padded[: len(raw)] = raw
    parts = multihost_utils.process_allgather(padded)
    every = np.concatenate([part[:n] for part, n in zip(parts, counts)])
    return every.view(x.dtype).reshape(-1, *x.shape[1:])
