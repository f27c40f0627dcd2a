"""One case of attention, raced: prepared, checked, then timed in turns."""

import dataclasses
import tempfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from peers.cases import Case
from peers.workers import Worker, alternate, quartiles, ratio

# Of the largest value; bfloat16 keeps eight bits, and gradients add up many of them.
TOLERANCE = {"float32": 1e-3, "bfloat16": 3e-2}


class Contestant(NamedTuple):
    """A form of attention that a worker knows; forward alone, or backward too."""

    worker: Worker
    form: str
    backward: bool = True


def race(
    contestants: Mapping[str, Contestant], case: Case, rounds: int, checked_rows: int
) -> dict[str, Any]:
    """The case, each contestant's seconds in every round, and why the others took no part: they
    did not compile or fit, or differ from the first in the outputs or gradients of some row."""
    what = dataclasses.asdict(case)
    failed: dict[str, str] = {}
    for name, (worker, form, backward) in contestants.items():
        try:
            worker.ask("prepare", key=name, case=what, form=form, backward=backward)
        except RuntimeError as e:
            failed[name] = str(e)
    ready = {name: c.worker for name, c in contestants.items() if name not in failed}
    failed |= disagreements(ready, case.dtype, checked_rows)
    samples = {n: lambda n=n: ready[n].ask("sample", key=n) for n in ready if n not in failed}
    seconds = alternate(samples, rounds)
    for worker in {id(c.worker): c.worker for c in contestants.values()}.values():
        worker.ask("forget")
    return {**what, "seconds": seconds, "failed": failed}


def disagreements(workers: Mapping[str, Worker], dtype: str, rows: int) -> dict[str, str]:
    """What is wrong with the outputs and gradients of those that differ from the first one's."""
    wrong: dict[str, str] = {}
    first: list[np.ndarray] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, worker in workers.items():
            path = f"{folder}/{name}.npz"
            worker.ask("save", key=name, path=path, rows=rows)
            with np.load(path) as file:
                arrays = list(file.values())
            first = first or arrays
            for what, expected, got in zip(("out", "dq", "dk", "dv"), first, arrays):
                apart = np.abs(expected - got).max() / np.abs(expected).max()
                if not apart <= TOLERANCE[dtype]:
                    text = f"{what} is {apart:.1e} of the largest value away"
                    wrong[name] = f"{text} from {next(iter(workers))}'s"
    return wrong


def milliseconds(result: Mapping[str, Any], name: str) -> str:
    """A cell: the median, why there is none, or a dash."""
    if name in result["failed"]:
        return f"failed: {result['failed'][name]}"
    seconds = result["seconds"].get(name)
    return f"{1e3 * quartiles(seconds)[1]:,.2f}" if seconds else "-"


def times(result: Mapping[str, Any], slower: str, faster: str) -> str:
    """A cell: how many times as long one takes as the other, with quartiles over the rounds."""
    seconds = result["seconds"]
    if slower not in seconds or faster not in seconds:
        return "-"
    low, middle, high = ratio(seconds[slower], seconds[faster])
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"
