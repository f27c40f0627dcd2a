"""A race of one attention case: contestants are prepared, compared, then timed in turns."""

import dataclasses
import tempfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from peers.cases import Case
from peers.workers import Worker, alternate, quartiles, ratio

# Relative to the largest value; bfloat16 has eight bits, and gradients are sums of many values.
TOLERANCE = {"float32": 1e-3, "bfloat16": 3e-2}


class Contestant(NamedTuple):
    """A form of attention that a worker has, forward only or with its backward pass."""

    worker: Worker
    form: str
    backward: bool = True


def race(
    contestants: Mapping[str, Contestant], case: Case, rounds: int, checked_rows: int
) -> dict[str, Any]:
    """Return the case, the seconds of each contestant in every round, and the failures.

    A contestant fails if it does not compile or fit in memory, or if its outputs or gradients
    differ from those of the first contestant.
    """
    fields = dataclasses.asdict(case)
    failed: dict[str, str] = {}
    for name, (worker, form, backward) in contestants.items():
        try:
            worker.ask("prepare", key=name, case=fields, form=form, backward=backward)
        except RuntimeError as e:
            failed[name] = str(e)
    ready = {name: c.worker for name, c in contestants.items() if name not in failed}
    failed |= disagreements(ready, case.dtype, checked_rows)
    samples = {n: lambda n=n: ready[n].ask("sample", key=n) for n in ready if n not in failed}
    seconds = alternate(samples, rounds)
    for worker in {id(c.worker): c.worker for c in contestants.values()}.values():
        worker.ask("forget")
    return {**fields, "seconds": seconds, "failed": failed}


def disagreements(workers: Mapping[str, Worker], dtype: str, rows: int) -> dict[str, str]:
    """Return, by contestant, how its outputs or gradients differ from those of the first one."""
    wrong: dict[str, str] = {}
    first: list[np.ndarray] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, worker in workers.items():
            path = f"{folder}/{name}.npz"
            worker.ask("save", key=name, path=path, rows=rows)
            with np.load(path) as file:
                arrays = list(file.values())
            first = first or arrays
            for array, expected, actual in zip(("out", "dq", "dk", "dv"), first, arrays):
                error = np.abs(expected - actual).max() / np.abs(expected).max()
                if not error <= TOLERANCE[dtype]:
                    reference = next(iter(workers))
                    wrong[name] = (
                        f"{array} differs from {reference}'s by {error:.1e} of its maximum"
                    )
    return wrong


def milliseconds(result: Mapping[str, Any], name: str) -> str:
    """Return a cell: the median, the reason why there is none, or a dash."""
    if name in result["failed"]:
        return f"failed: {result['failed'][name]}"
    seconds = result["seconds"].get(name)
    return f"{1e3 * quartiles(seconds)[1]:,.2f}" if seconds else "-"


def times(result: Mapping[str, Any], slower: str, faster: str) -> str:
    """Return a cell: the time of one over that of the other, with quartiles over the rounds."""
    seconds = result["seconds"]
    if slower not in seconds or faster not in seconds:
        return "-"
    low, middle, high = ratio(seconds[slower], seconds[faster])
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"
