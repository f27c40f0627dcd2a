"""Environment variables of a job; docs/launch.md has the reasons."""

from ligr_jax.launch.options import LaunchOptions
from ligr_jax.runs.files import COMPILED
from ligr_jax.store.mirror import is_uri


def job_environment(options: LaunchOptions) -> dict[str, str]:
    """Return the environment variables that a job sets before `ligr` starts.

    Args:
        options: what to launch.
    """
    # All jobs of a sweep and all restarts share the programs that one of them has compiled, on a
    # file system.
    variables = {}
    if not is_uri(options.out):
        variables["JAX_COMPILATION_CACHE_DIR"] = f"{options.out}/{COMPILED}"
    if options.target == "local":
        return variables
    if options.devices == 0:
        variables["JAX_PLATFORMS"] = "cpu"
    elif not options.is_tpu:
        # The default of 0.75 leaves 20 GB of an H100 unused; NCCL and cuBLAS need about 5 GB.
        variables["XLA_PYTHON_CLIENT_MEM_FRACTION"] = "0.92"
        if options.hosts * options.devices > 1:
            variables["XLA_FLAGS"] = "--xla_gpu_enable_latency_hiding_scheduler=true"
    return variables
