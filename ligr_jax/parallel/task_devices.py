"""Accelerators of one of several processes on a host.

Under SLURM and Open MPI, JAX lets each process see one device, the one with the process's index on
its host. That is right for one process per GPU; of a process that is alone on its host it would
hide all GPUs but one. Here the processes of a host share its devices evenly.
"""

import glob
import os
import re
from collections.abc import Mapping

from ligr_jax.data.schema import BadInput

_LISTED = "JAX_LOCAL_DEVICE_IDS"
# Index of a process on its host, and number of processes of each host.
_LAUNCHERS = (
    ("SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"),
    ("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
)
# With these SLURM shows each task only its own GPUs.
_BOUND = ("SLURM_GPUS_PER_TASK", "SLURM_NTASKS_PER_GPU")


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the ids of the GPUs that this process may use, without starting them.

    Args:
        environment: Environment variables; CUDA_VISIBLE_DEVICES limits the GPUs of the machine.
    """
    listed = environment.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return [str(i) for i in range(len(glob.glob("/dev/nvidia[0-9]*")))]
    return [word.strip() for word in listed.split(",") if word.strip()]


def local_device_ids(environment: Mapping[str, str], visible: int) -> list[int]:
    """Return the indices of the devices that this process uses; empty for all visible ones.

    Args:
        environment: Environment variables. JAX_LOCAL_DEVICE_IDS overrides the launcher's.
        visible: Number of GPUs that the process may use.

    Raises:
        BadInput: The processes of this host cannot share its GPUs evenly.
    """
    if listed := environment.get(_LISTED):
        words = listed.split(",")
        if not all(word.strip().isdigit() for word in words):
            raise BadInput(f"{_LISTED}={listed} is not a list of numbers such as 0,1; correct it")
        return [int(word) for word in words]
    index, count = _place_on_host(environment)
    if count == 1 or visible <= 1 or any(name in environment for name in _BOUND):
        return []
    if visible % count:
        raise BadInput(
            f"{count} processes on this host cannot share {visible} GPUs evenly; start another "
            f"number of processes per host, or set {_LISTED} for each of them, e.g. {_LISTED}=0,1"
        )
    share = visible // count
    return list(range(index * share, (index + 1) * share))


def _place_on_host(environment: Mapping[str, str]) -> tuple[int, int]:
    """Return the index of this process on its host, and the number of processes there."""
    for index, counts in _LAUNCHERS:
        if environment.get(index, "").isdigit() and counts in environment:
            node = environment.get("SLURM_NODEID", "0") if counts.startswith("SLURM") else "0"
            per_node = _expand_counts(environment[counts])
            node_index = int(node) if node.isdigit() else 0
            if node_index < len(per_node):
                return int(environment[index]), per_node[node_index]
    return 0, 1


def _expand_counts(text: str) -> list[int]:
    """Return the numbers of tasks per node: [2, 2, 2, 1] for SLURM's `2(x3),1`.

    Args:
        text: List of counts; a malformed one counts as no node.
    """
    counts: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if not match:
            return []
        counts += [int(match[1])] * int(match[2] or 1)
    return counts
