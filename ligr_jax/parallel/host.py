"""What must be decided before JAX starts: by whatever starts a process, never by the library."""

import ctypes.util
import glob
import os
import sys

ALLOCATOR = "LIGR_ALLOCATOR"  # of the environment: auto (default), none, or a library's path
# Blocks of 64 MiB and more, such as a checkpoint's copies of tables: one arena keeps them for all
# threads, or each thread that ever made one would keep its own.
_JEMALLOC = "dirty_decay_ms:-1,muzzy_decay_ms:-1,thp:always,oversize_threshold:67108864"


def use_all_cores() -> None:
    """On CPU, one simulated device per core: data parallelism there beats one device with threads.

    Does nothing where XLA_FLAGS already says how many, and nothing to accelerators.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_force_host_platform_device_count" not in flags:
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={count}".strip()


def use_fast_allocator() -> None:
    """On a CPU, starts this process again with an allocator that keeps the memory it is given.

    XLA allocates a step's outputs and temporaries afresh, and the system's allocator returns them
    after each step: every page is faulted in again. jemalloc, where the system has it, makes a step
    about 1.6 times as fast (experiments/step.py, with --allocator none beside it); glibc's huge
    pages do so now and then. Says what it took on stderr; does nothing where there is an
    accelerator, another allocator, or LIGR_ALLOCATOR=none. Call it first of all: the arguments are
    kept, nothing else is.
    """
    choice = os.environ.get(ALLOCATOR, "auto")
    chosen_already = {"LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_CONF"} & os.environ.keys()
    accelerator = (
        glob.glob("/dev/nvidia[0-9]*") + glob.glob("/dev/accel*") + glob.glob("/dev/vfio/*")
    )
    if sys.platform != "linux" or choice == "none" or chosen_already or accelerator:
        return
    library = ctypes.util.find_library("jemalloc") if choice == "auto" else choice
    if library:
        settings = {"LD_PRELOAD": library, "MALLOC_CONF": _JEMALLOC}
    else:
        settings = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    name = library or "glibc with huge pages (jemalloc, where installed, is faster)"
    print(f"memory: {name}; {ALLOCATOR}=none keeps the system's", file=sys.stderr, flush=True)
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **settings})
