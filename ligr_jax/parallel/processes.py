"""Several processes that run one command together, each with its own devices and part of the data.

JAX finds its cluster itself under SLURM and on Cloud TPU. Elsewhere the environment says who is
where, alike in every process but for the last line:

    JAX_COORDINATOR_ADDRESS=host0:1234    the first process listens there
    JAX_NUM_PROCESSES=2
    JAX_PROCESS_ID=0
"""

import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from ligr_jax.data.schema import BadInput
from ligr_jax.stop import StopRequest

_ADDRESS, _COUNT, _INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


def join_processes() -> None:
    """Joins the processes of this run, if there are several. Call it before JAX has devices.

    Raises:
        BadInput: the environment names a coordinator without saying how many processes there are
            and which one this is.
    """
    if _ADDRESS in os.environ:
        missing = [name for name in (_COUNT, _INDEX) if not os.environ.get(name, "").isdigit()]
        if missing:
            raise BadInput(f"{_ADDRESS} is set, but {missing[0]} is not a number; set it too")
        jax.distributed.initialize(
            os.environ[_ADDRESS], int(os.environ[_COUNT]), int(os.environ[_INDEX])
        )
    elif _in_cluster():
        jax.distributed.initialize()


def _in_cluster() -> bool:
    """A job step of several SLURM tasks, or one of several TPU hosts."""
    env = os.environ
    tasks = env.get("SLURM_STEP_NUM_TASKS", "1") if "SLURM_PROCID" in env else "1"
    return int(tasks) > 1 or "," in env.get("TPU_WORKER_HOSTNAMES", "")


def is_first() -> bool:
    """Whether this process writes what is written once: metrics, summaries, messages."""
    return jax.process_index() == 0


def stop_agreed(stop: StopRequest) -> bool:
    """Whether to stop now. Several processes call it at the same points of their work, and all of
    them return True at the same call."""
    if jax.process_count() == 1:
        return stop.is_set()
    return False


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
