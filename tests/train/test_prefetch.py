"""Laws of the prefetch: two batches ahead, states of the batches in use, errors in order."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from ligr_jax.train.prefetch import AHEAD, Prefetch


class Numbers:
    """An iterator with a state, like `TrainBatches`, of 0, 1, ... that fails at `end`."""

    def __init__(self, end: int = 10**9) -> None:
        self.number, self.end = 0, end
        self.closed = False

    def __next__(self) -> int:
        if self.number == self.end:
            raise ValueError("no such batch")
        self.number += 1
        return self.number - 1

    def get_state(self) -> dict[str, int]:
        return {"next_index": self.number}

    def close(self) -> None:
        self.closed = True


def until(condition: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if condition():
            return
        time.sleep(0.001)
    raise AssertionError("never happened")


def test_two_transfers_are_started_before_the_step_that_uses_them() -> None:
    sources: Any = [Numbers(), Numbers()]
    put: list[list[int]] = []
    with Prefetch(sources, lambda batches: put.append(list(batches)) or batches) as prefetch:
        for step in range(20):
            until(lambda n=step: len(put) == n + AHEAD)
            assert prefetch.states == [{"next_index": step}] * 2
            inputs, waited = prefetch.next(in_flight=())
            assert inputs == [step, step]
            assert waited >= 0
        until(lambda: len(put) == 20 + AHEAD)
        time.sleep(0.01)
        assert len(put) == 20 + AHEAD
        thread = prefetch._thread
    assert not thread.is_alive()
    assert all(source.closed for source in sources)


def test_a_wait_begins_when_the_devices_have_finished() -> None:
    release = threading.Event()
    order = []

    class Running:
        def block_until_ready(self) -> None:
            order.append("devices finished")
            release.set()

    def put(batches: Any) -> Any:
        if batches == [1]:  # late: it arrives only after the devices have finished
            assert release.wait(60)
            order.append("batch arrived")
        return batches

    sources: Any = [Numbers()]
    with Prefetch(sources, put) as prefetch:
        prefetch.next(in_flight=())
        prefetch.next(in_flight=Running())
    assert order == ["devices finished", "batch arrived"]


def test_an_error_is_raised_by_the_step_that_needs_the_batch() -> None:
    sources: Any = [Numbers(end=2)]
    with Prefetch(sources, list) as prefetch:
        assert [prefetch.next(())[0] for _ in range(2)] == [[0], [1]]
        with pytest.raises(ValueError, match="no such batch"):
            prefetch.next(())
    assert sources[0].closed
