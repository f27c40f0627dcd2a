"""Environment variables by which launchers tell a process its place in a cluster.

A process that `srun`, `mpirun` or a pod starts inherits its index and the number of its peers. The
children of a sweep's runner are runs of their own and must not join the cluster of the runner.
"""

import re
from collections.abc import Mapping

# What `jax.distributed` and MPI read. The job itself stays visible, e.g. SLURM_JOB_ID.
_PLACE_IN_CLUSTER = re.compile(
    r"JAX_(COORDINATOR_.*|NUM_PROCESSES|PROCESS_ID|LOCAL_DEVICE_IDS|PARTITION_INDEX|SLICE_INDEX)"
    r"|SLURM_(PROCID|LOCALID|NODEID|NTASKS.*|NPROCS|TASK.*|STEP.*|GTIDS|LAUNCH_.*|SRUN_.*)"
    r"|OMPI_.*|PMI2?_.*|PMIX_.*|PRTE_.*|ORTE_.*|MPI_LOCAL.*|HYDRA_.*"
    r"|JOB_COMPLETION_INDEX|MEGASCALE_.*|TPU_WORKER_.*|TPU_PROCESS_ADDRESSES|CLOUD_TPU_TASK_ID"
)


def expects_peers(environment: Mapping[str, str]) -> bool:
    """Whether this process is one of several: a task of a SLURM step, a TPU host, or by hand."""
    tasks = "SLURM_PROCID" in environment and environment.get("SLURM_STEP_NUM_TASKS")
    return bool(environment.get("JAX_COORDINATOR_ADDRESS")) or (
        (tasks or "1") != "1" or "," in environment.get("TPU_WORKER_HOSTNAMES", "")
    )


def without_cluster(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a process that is not part of this process's cluster."""
    return {k: v for k, v in environment.items() if not _PLACE_IN_CLUSTER.fullmatch(k)}
