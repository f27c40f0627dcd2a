"""Cores and memory are those of the machine, or the limits of the container, if these are lower."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ligr_jax.host_limits import host_cores, host_memory

WriteGroups = Callable[[str, dict[str, str]], Path]


@pytest.fixture
def write_groups(tmp_path: Path) -> WriteGroups:
    """`write_groups(groups, limits)`: a directory with /proc/self/cgroup and limits by path."""

    def write(groups: str, limits: dict[str, str]) -> Path:
        root = tmp_path / str(len([*tmp_path.iterdir()]))
        texts = {"proc/self/cgroup": groups} | {f"sys/fs/cgroup/{k}": v for k, v in limits.items()}
        for path, text in texts.items():
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text + "\n")
        return root

    return write


def test_memory_is_limited_by_the_container(write_groups: WriteGroups, tmp_path: Path) -> None:
    machine = host_memory(tmp_path)  # without control groups

    def limited(groups: str, limits: dict[str, str]) -> int:
        return host_memory(write_groups(groups, limits))

    nested = {"pod/box/memory.max": "max", "pod/memory.max": "1000"}
    assert limited("0::/pod/box", nested) == 1000
    assert limited("0::/", {"memory.max": "max"}) == machine
    assert limited("0::/", {"memory.max": str(2 * machine)}) == machine
    # Version 1: in a container, the path of the group exists only on the host.
    v1 = "5:cpu:/docker/a\n4:memory:/docker/a"
    assert limited(v1, {"memory/memory.limit_in_bytes": "500"}) == 500


@pytest.mark.parametrize(
    ("text", "limit"),
    [("max 100000", None), ("150000 100000", 1), ("50000 100000", 1), (None, None), ("x", None)],
)
def test_a_container_limits_the_cores(
    write_groups: WriteGroups, tmp_path: Path, text: str | None, limit: int | None
) -> None:
    machine = host_cores(tmp_path)
    assert machine >= 1
    cpu_max = {} if text is None else {"pod/cpu.max": text}
    assert host_cores(write_groups("0::/pod/box", cpu_max)) == (limit or machine)


def test_a_container_of_control_groups_version_1_limits_the_cores(
    write_groups: WriteGroups, tmp_path: Path
) -> None:
    for quota, limit in (("-1", host_cores(tmp_path)), ("100000", 1)):
        limits = {"cpu/cpu.cfs_quota_us": quota, "cpu/cpu.cfs_period_us": "100000"}
        assert host_cores(write_groups("4:cpu,cpuacct:/docker/a", limits)) == limit
