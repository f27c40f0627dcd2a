"""Environment variables with which launchers describe a cluster to a process.

A process that `srun`, `mpirun` or a pod starts inherits its index and the number of processes. The
children of a sweep's runner train separate runs and must not join the cluster of the runner.
"""

import re
from collections.abc import Mapping

# What `jax.distributed` and MPI read. The job itself stays visible, e.g. SLURM_JOB_ID.
_CLUSTER_VARIABLE = re.compile(
    r"JAX_(COORDINATOR_.*|NUM_PROCESSES|PROCESS_ID|LOCAL_DEVICE_IDS|PARTITION_INDEX|SLICE_INDEX)"
    r"|SLURM_(PROCID|LOCALID|NODEID|NTASKS.*|NPROCS|TASK.*|STEP.*|GTIDS|LAUNCH_.*|SRUN_.*)"
    r"|OMPI_.*|PMI2?_.*|PMIX_.*|PRTE_.*|ORTE_.*|MPI_LOCAL.*|HYDRA_.*"
    r"|JOB_COMPLETION_INDEX|MEGASCALE_.*|TPU_WORKER_.*|TPU_PROCESS_ADDRESSES|CLOUD_TPU_TASK_ID"
)


def expects_peers(environment: Mapping[str, str]) -> bool:
    """Return whether this process is one of several processes of a run.

    Args:
        environment: Environment variables. A coordinator's address, a SLURM step of several tasks,
            several TPU hosts or several TPU slices stand for several processes.
    """
    tasks = "SLURM_PROCID" in environment and environment.get("SLURM_STEP_NUM_TASKS")
    hosts = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")
    return (
        bool(environment.get("JAX_COORDINATOR_ADDRESS"))
        or (tasks or "1") != "1"
        or any("," in environment.get(name, "") for name in hosts)
        or environment.get("MEGASCALE_NUM_SLICES", "1") != "1"
    )


def without_cluster(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a child process that does not join this process's cluster."""
    return {k: v for k, v in environment.items() if not _CLUSTER_VARIABLE.fullmatch(k)}
