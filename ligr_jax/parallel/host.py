"""What must be decided before JAX starts: by whatever starts a process, never by the library."""

import os


def use_all_cores() -> None:
    """On CPU, one simulated device per core: data parallelism there beats one device with threads.

    Does nothing where XLA_FLAGS already says how many, and nothing to accelerators.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_force_host_platform_device_count" not in flags:
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={count}".strip()
