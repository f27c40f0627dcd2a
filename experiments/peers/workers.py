"""Processes that take turns: `Worker` in the parent, `serve` in the worker.

The parent imports neither JAX nor PyTorch. A worker stays alive, so that it and its allocator are
warm. While one worker runs, the others wait for their standard input.
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
# Keep freed pages and use huge ones: XLA on CPU allocates new outputs at every call. These are the
# settings of `ligr_jax.parallel.host`.
JEMALLOC = "dirty_decay_ms:-1,muzzy_decay_ms:-1,thp:always,oversize_threshold:67108864"


class Worker:
    """A process that answers requests, one JSON object per line."""

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
        """Return the answer of the worker's command `do`.

        Raises:
            RuntimeError: the command raised an error (the message is here, the traceback on
                standard error), or the process ended.
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
    """The share of the cores that other processes used since this object was made.

    Call `share` after all workers are closed. A busy machine is unfair to PyTorch, whose threads
    wait for each other at barriers.
    """

    def __init__(self) -> None:
        self._began, self._busy = time.perf_counter(), _busy_seconds()

    def share(self) -> float:
        cores = os.cpu_count() or 1
        own = sum(os.times()[:4])  # includes children that have ended
        others = _busy_seconds() - self._busy - own
        return max(0.0, others / cores / (time.perf_counter() - self._began))


def _busy_seconds() -> float:
    """Return the busy seconds of all cores since the machine started (Linux; 0 elsewhere)."""
    if not (stat := Path("/proc/stat")).exists():
        return 0.0
    user, nice, system = stat.read_text().split()[1:4]
    return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")


def serve(**commands: Callable[..., Any]) -> None:
    """Answer requests until standard input ends; other output goes to standard error."""
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
    """Warm calls of a worker, by name.

    wait: blocks until the results of a call are ready.
    queued: a sample queues its calls and waits at its end, as on a GPU; otherwise it waits for
        each call.
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
        """Return the seconds of one call.

        The results of a call are freed before the next one, as within a training step.
        """
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
    """Return the seconds of each contestant, one sample of each per round.

    All contestants see the same load of the machine. Every other round runs in reverse order, so
    that no contestant always follows the same one.
    """
    times: dict[str, list[float]] = {name: [] for name in samples}
    for number in range(rounds):
        for name in list(samples)[:: 1 if number % 2 == 0 else -1]:
            times[name].append(samples[name]())
    return times


def quartiles(values: Any) -> list[float]:
    """Return the lower quartile, the median and the upper quartile."""
    return [float(x) for x in np.percentile(values, (25, 50, 75))]


def ratio(slower: list[float], faster: list[float]) -> list[float]:
    """Return the quartiles of `slower / faster` over the rounds."""
    return quartiles(np.divide(slower, faster))


def allocator(choice: str) -> tuple[str, dict[str, str]]:
    """Return the name and the environment of an allocator for both sides.

    `auto` is jemalloc or tcmalloc if the system has one, otherwise glibc's with huge pages; `none`
    changes nothing; another value is the path of a library.
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
    """Return the name of the allocator that this process has loaded in place of the system's."""
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.exists() else []
    names = {Path(line.split()[-1]).name for line in lines if "malloc" in line}
    return ", ".join(sorted(names)) or "none"
