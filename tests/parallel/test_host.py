"""Settings made before JAX starts: devices and allocator of a process on a CPU."""

import os
import sys

import pytest

from ligr_jax.host_limits import host_cores
from ligr_jax.parallel import host


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """Arguments and environments that the process would have been restarted with."""
    calls: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda _, arguments, env: calls.append((arguments, env)))
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "ligr_jax", "train", "--out", "x"])
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(host.glob, "glob", lambda _: [])
    for name in ("LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_CONF", host.ALLOCATOR):
        monkeypatch.delenv(name, raising=False)
    return calls


def test_process_restarts_with_the_available_allocator(
    started: list, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    for library, expected in (
        ("libjemalloc.so.2", ("LD_PRELOAD", "libjemalloc.so.2")),
        (None, ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")),
    ):
        monkeypatch.setattr(host.ctypes.util, "find_library", lambda _, library=library: library)
        host.use_fast_allocator()
        arguments, env = started.pop()
        assert arguments == [sys.executable, "-m", "ligr_jax", "train", "--out", "x"]
        assert expected in env.items()
        assert f"{host.ALLOCATOR}=none" in said[-1]


@pytest.mark.parametrize(
    ("name", "value"), [("LD_PRELOAD", "libother.so"), (host.ALLOCATOR, "none")]
)
def test_configured_allocator_is_kept(
    started: list, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    host.use_fast_allocator()
    assert not started


def test_allocator_is_kept_if_there_is_an_accelerator(
    started: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host.glob, "glob", lambda pattern: [pattern])
    host.use_fast_allocator()
    assert not started


def test_one_device_per_core_is_simulated_unless_the_number_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
    host.use_all_cores()
    assert f"--xla_force_host_platform_device_count={host_cores()}" in os.environ["XLA_FLAGS"]
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=3")
    host.use_all_cores()
    assert os.environ["XLA_FLAGS"] == "--xla_force_host_platform_device_count=3"
