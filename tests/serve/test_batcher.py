"""Laws of batches of waiting requests."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from ligr_jax.serve.service import batcher as batcher_module
from ligr_jax.serve.service.batcher import Batcher, Overloaded


class Recorder:
    """Records batches; runs each one when it is allowed to."""

    def __init__(self, is_open: bool = True) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.started = threading.Event()
        if is_open:
            self.gate.set()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.started.set()
        self.gate.wait()
        if 13 in items:
            raise ValueError("a batch failed")
        return [10 * item for item in items]


@contextmanager
def batcher(
    run: Recorder, wait_s: float = 0.0, most_waiting: int = 99, timeout_s: float = 60.0
) -> Iterator["Batcher[int, int]"]:
    made = Batcher[int, int](
        run, largest=3, wait_s=wait_s, most_waiting=most_waiting, timeout_s=timeout_s
    )
    yield made
    run.gate.set()
    made.close()


def test_requests_of_one_kind_share_batches_and_the_oldest_goes_first() -> None:
    run = Recorder(is_open=False)
    with batcher(run) as waiting:
        first = waiting.submit("a", 0)
        run.started.wait()
        later = [waiting.submit(kind, item) for kind, item in zip("bababa", range(1, 7))]
        run.gate.set()
        assert [f.result() for f in (first, *later)] == [0, 10, 20, 30, 40, 50, 60]
    assert run.batches == [[0], [1, 3, 5], [2, 4, 6]]


def test_a_request_waits_for_others_no_longer_than_the_batch_is_full() -> None:
    run = Recorder()
    with batcher(run, wait_s=3600.0) as waiting:
        futures = [waiting.submit("a", item) for item in range(3)]
        assert [f.result(timeout=60) for f in futures] == [0, 10, 20]
        alone = waiting.submit("a", 3)
        assert not alone.done()
        waiting.close()  # answers it
        assert alone.result() == 30
    assert run.batches == [[0, 1, 2], [3]]


def test_requests_without_a_place_and_late_requests_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(batcher_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    run = Recorder(is_open=False)
    with batcher(run, most_waiting=1, timeout_s=1.0) as waiting:
        running = waiting.submit("a", 0)
        run.started.wait()
        late = waiting.submit("a", 1)
        with pytest.raises(Overloaded, match="1 requests wait; try again later"):
            waiting.submit("a", 2)
        now[0] = 1.5
        run.gate.set()
        assert running.result() == 0
        with pytest.raises(Overloaded, match="longer than --timeout-ms"):
            late.result()
    with pytest.raises(Overloaded, match="is stopping"):
        waiting.submit("a", 3)


def test_an_error_of_a_request_reaches_no_other_one_of_its_batch() -> None:
    run = Recorder(is_open=False)
    with batcher(run) as waiting:
        first = waiting.submit("a", 0)
        run.started.wait()
        failing, neighbour = waiting.submit("b", 13), waiting.submit("b", 14)
        cancelled = waiting.submit("c", 1)
        cancelled.cancel()
        other = waiting.submit("d", 2)
        run.gate.set()
        with pytest.raises(ValueError, match="a batch failed"):
            failing.result()
        assert (first.result(), neighbour.result(), other.result()) == (0, 140, 20)
    assert run.batches == [[0], [13, 14], [13], [14], [2]]
