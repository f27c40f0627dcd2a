"""Memory that this process may use: that of the machine, or the limit of its container.

A container sees the memory of its machine, but the kernel kills it at the limit of its control
group (cgroup), which Docker, Kubernetes and SLURM set.
"""

import os
from pathlib import Path


def host_memory(root: Path = Path("/")) -> int:
    """Return the bytes of memory that this process may use.

    Args:
        root: Directory that has `proc` and `sys`.
    """
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([pages, *_cgroup_limits(root)])


def _cgroup_limits(root: Path) -> list[int]:
    """Return the limits of the control groups of this process, versions 1 and 2."""
    limits = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:  # version 2
            base, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            base, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        # Groups above limit this one too. In a container only the last of them exists.
        path = Path(group.lstrip("/"))
        for directory in (path, *path.parents):
            limit = _text(base / directory / name).strip()
            if limit.isdigit():  # version 2 writes `max` for no limit
                limits.append(int(limit))
    return limits


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
