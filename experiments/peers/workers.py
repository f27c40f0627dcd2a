"""Processes that take turns: the parent's side, `Worker`, and theirs, `serve`.

The parent imports neither JAX nor PyTorch. A worker is kept alive, so that it is warm and its
allocator has seen its work; while one is asked, the others wait for their standard input.
"""

import ctypes.util
import json
import math
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

SAMPLE_SECONDS = 0.02  # at least: shorter calls are repeated within a sample
# Keep freed pages and take huge ones: XLA on CPU allocates new outputs at every call. As
# `ligr_jax.parallel.host` has it.
JEMALLOC = "dirty_decay_ms:-1,muzzy_decay_ms:-1,thp:always,oversize_threshold:67108864"


class Worker:
    """A process that answers requests, one JSON object a line."""

    def __init__(self, python: str, module: str, env: Mapping[str, str] = {}) -> None:
        folder = str(Path(__file__).parents[1])
        # This folder for `peers`, the one above for the library.
        paths = [folder, str(Path(folder).parent), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [python, "-m", f"peers.{module}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **env},
        )

    def ask(self, do: str, **arguments: Any) -> Any:
        """The answer of the worker's command `do`.

        Raises:
            RuntimeError: the command raised (its message, and its trace on standard error), or the
                process ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker ended with status {self._process.wait()} at '{do}'")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["value"]

    def close(self) -> None:
        self._process.communicate()


class Neighbours:
    """What other processes took of the cores since this was made, to be asked when all workers are
    closed. A busy machine is unfair to PyTorch, whose threads wait for each other at barriers."""

    def __init__(self) -> None:
        self._began, self._busy = time.perf_counter(), _busy_seconds()

    def share(self) -> float:
        cores = os.cpu_count() or 1
        own = sum(os.times()[:4])  # children, once they ended, are counted
        others = _busy_seconds() - self._busy - own
        return max(0.0, others / cores / (time.perf_counter() - self._began))


def _busy_seconds() -> float:
    """Seconds all cores together worked since the start of the machine (Linux; 0 elsewhere)."""
    if not (stat := Path("/proc/stat")).exists():
        return 0.0
    user, nice, system = stat.read_text().split()[1:4]
    return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")


def serve(**commands: Callable[..., Any]) -> None:
    """Answers requests until standard input ends; what else is printed goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"value": commands[request.pop("do")](**request)}
        except Exception as e:
            traceback.print_exc()
            first = str(e).strip().partition("\n")[0]
            answer = {"error": f"{type(e).__name__}: {first[:200]}"}
        answers.write(json.dumps(answer) + "\n")


class Calls:
    """A worker's warm calls by name.

    wait: blocks until what a call returned is there.
    queued: calls of a sample are queued and waited for at its end, as on a GPU; else one by one.
    """

    def __init__(self, wait: Callable[[Any], Any], queued: bool) -> None:
        self._wait, self._queued = wait, queued
        self._calls: dict[str, tuple[Callable[[], Any], int]] = {}

    def add(self, key: str, call: Callable[[], Any]) -> None:
        self._calls[key] = call, 1
        self.sample(key)  # compiles
        self._calls[key] = call, max(1, math.ceil(SAMPLE_SECONDS / self.sample(key)))
        self.sample(key)

    def result(self, key: str) -> Any:
        return self._calls[key][0]()

    def sample(self, key: str) -> float:
        """Seconds of one call. What it returned is dropped before the next one: within a training
        step too, its memory is there for whoever comes next."""
        call, times = self._calls[key]
        began = time.perf_counter()
        for i in range(times):
            result = call()
            if i == times - 1 or not self._queued:
                self._wait(result)
            del result
        return (time.perf_counter() - began) / times

    def forget(self) -> None:
        self._calls.clear()


def alternate(samples: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contestant, one sample of each in every round, so that all see the same
    machine; every other round runs backwards, so that none always follows the same one."""
    times: dict[str, list[float]] = {name: [] for name in samples}
    for number in range(rounds):
        for name in list(samples)[:: 1 if number % 2 == 0 else -1]:
            times[name].append(samples[name]())
    return times


def quartiles(values: Any) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return [float(x) for x in np.percentile(values, (25, 50, 75))]


def ratio(slower: list[float], faster: list[float]) -> list[float]:
    """Quartiles of `slower / faster`, round by round."""
    return quartiles(np.divide(slower, faster))


def allocator(choice: str) -> tuple[str, dict[str, str]]:
    """A name and the environment of an allocator for both sides.

    auto: jemalloc or tcmalloc where the system has one, else glibc's with huge pages. none: as it
    is. Anything else is the path of a library.
    """
    library = choice
    if choice == "auto":
        found = map(ctypes.util.find_library, ("jemalloc", "tcmalloc", "tcmalloc_minimal"))
        library = next(filter(None, found), "")
    if library == "none":
        return "the system's allocator", {}
    if not library:
        return "glibc with huge pages", {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    return library, {"LD_PRELOAD": library, "MALLOC_CONF": JEMALLOC}


def loaded_allocator() -> str:
    """The allocator that this process really has loaded in place of the system's."""
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.exists() else []
    names = {Path(line.split()[-1]).name for line in lines if "malloc" in line}
    return ", ".join(sorted(names)) or "none"
