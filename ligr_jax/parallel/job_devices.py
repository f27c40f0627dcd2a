"""Accelerators of the processes that a sweep trains at the same time on one machine."""

from collections.abc import Mapping

from ligr_jax.config import ConfigError

# Shape of a block of TPU chips, by its number of chips.
_CHIP_BOUNDS = {1: "1,1,1", 2: "1,2,1", 4: "2,2,1", 8: "2,4,1"}


def devices_of_jobs(
    backend: str, count: int, jobs: int, environment: Mapping[str, str]
) -> list[dict[str, str]]:
    """Return the environment variables that give each job of a sweep devices of its own.

    Args:
        backend: JAX's name of the platform: cpu, gpu, tpu. Jobs on a CPU share its cores.
        count: Number of devices of this machine that JAX sees.
        jobs: Number of processes that train at the same time.
        environment: Environment variables that the jobs inherit, which may name the devices.

    Returns:
        Variables of each job, [jobs].

    Raises:
        ConfigError: There are more jobs than devices, or a TPU cannot be divided so.
    """
    if jobs == 1 or backend == "cpu":
        return [{} for _ in range(jobs)]
    variable = "TPU_VISIBLE_CHIPS" if backend == "tpu" else "CUDA_VISIBLE_DEVICES"
    listed = [w.strip() for w in environment.get(variable, "").split(",") if w.strip()]
    visible = listed if len(listed) == count else [str(i) for i in range(count)]
    share = count // jobs
    if not share:
        raise ConfigError(
            f"--jobs {jobs}: this machine has {count} devices ({backend}), and each process "
            f"needs one of its own; use --jobs {count} or less"
        )
    parts = [",".join(visible[i * share : (i + 1) * share]) for i in range(jobs)]
    if backend != "tpu":
        return [{variable: part} for part in parts]
    if share not in _CHIP_BOUNDS:
        raise ConfigError(
            f"--jobs {jobs}: {share} of {count} TPU chips form no block; use --jobs {count}"
        )
    # Each process is a slice of its own.
    return [
        {
            variable: part,
            "TPU_CHIPS_PER_PROCESS_BOUNDS": _CHIP_BOUNDS[share],
            "TPU_PROCESS_BOUNDS": "1,1,1",
        }
        for part in parts
    ]
