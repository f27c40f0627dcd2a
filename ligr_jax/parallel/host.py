"""Process settings that a program must make before JAX starts; the library never makes them."""

import ctypes.util
import glob
import logging
import os
import sys

from ligr_jax.host_limits import host_cores

_log = logging.getLogger(__name__)

ALLOCATOR = "LIGR_ALLOCATOR"  # environment variable: auto (default), none, or a library's path
# oversize_threshold: blocks of 64 MiB and more, such as a checkpoint's copies of tables, come from
# one arena that all threads share; otherwise each thread would keep its own copies.
_JEMALLOC = "dirty_decay_ms:-1,muzzy_decay_ms:-1,thp:always,oversize_threshold:67108864"


def use_all_cores() -> None:
    """Simulate one device per CPU core: data parallelism is faster than one device with threads.

    This has no effect on accelerators, or if XLA_FLAGS already sets the number of devices.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_force_host_platform_device_count" not in flags:
        count = f"--xla_force_host_platform_device_count={host_cores()}"
        os.environ["XLA_FLAGS"] = f"{flags} {count}".strip()


def use_fast_allocator() -> None:
    """On a CPU, restart this process with an allocator that does not return freed memory.

    XLA allocates the outputs and temporaries of every step, and the system's allocator returns them
    to the kernel after the step, so that every page faults again. With jemalloc, if installed, a
    step is about 1.6 times as fast (experiments/step.py, compared with --allocator none); with
    glibc's huge pages it is so sometimes. The choice is logged.

    This does nothing if there is an accelerator, if another allocator is configured, or with
    LIGR_ALLOCATOR=none. Call it before anything else: only the arguments survive the restart.
    """
    choice = os.environ.get(ALLOCATOR, "auto")
    configured = {"LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_CONF"} & os.environ.keys()
    accelerator = (
        glob.glob("/dev/nvidia[0-9]*") + glob.glob("/dev/accel*") + glob.glob("/dev/vfio/*")
    )
    if sys.platform != "linux" or choice == "none" or configured or accelerator:
        return
    library = ctypes.util.find_library("jemalloc") if choice == "auto" else choice
    if library:
        settings = {"LD_PRELOAD": library, "MALLOC_CONF": _JEMALLOC}
    else:
        settings = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    name = library or "glibc with huge pages (jemalloc, if installed, is faster)"
    _log.info(f"memory allocator: {name}; {ALLOCATOR}=none keeps the default")
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **settings})
