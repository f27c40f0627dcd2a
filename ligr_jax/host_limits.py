"""Cores and memory that this process may use: those of the machine, or the limits of its container.

A container sees the cores and the memory of its machine, but its control group (cgroup), which
Docker, Kubernetes and SLURM set, limits both: the kernel slows it down, or kills it.
"""

import os
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")


def host_memory(root: Path = _ROOT) -> int:
    """Return the bytes of memory that this process may use.

    Args:
        root: Directory that has `proc` and `sys`.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for version, group in _groups(root, "memory"):
        limit = _text(group / ("memory.max" if version == 2 else "memory.limit_in_bytes"))
        if limit.isdigit():  # version 2 writes `max` for no limit
            limits.append(int(limit))
    return min(limits)


def host_cores(root: Path = _ROOT) -> int:
    """Return the number of cores that this process may use, at least 1.

    Args:
        root: As in `host_memory`.
    """
    # os.sched_getaffinity exists on Linux only.
    all_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limits = [all_cores or 1]
    for version, group in _groups(root, "cpu"):
        if version == 2:
            words = _text(group / "cpu.max").split()
        else:
            words = [_text(group / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
        if len(words) == 2 and all(word.isdigit() for word in words):  # `max` or -1: no limit
            limits.append(max(1, int(words[0]) // int(words[1])))
    return min(limits)


def _groups(root: Path, controller: str) -> Iterator[tuple[int, Path]]:
    """Yield the version and the directory of each control group that limits this process."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, name = line.split(":", 2)
        if not controllers:
            version, base = 2, root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            version, base = 1, root / "sys/fs/cgroup" / controller
        else:
            continue
        # Groups above limit this one too. In a container only the last of them exists.
        group = Path(name.lstrip("/"))
        for path in (group, *group.parents):
            yield version, base / path


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
