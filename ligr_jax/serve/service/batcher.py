"""Batches of waiting requests: those of one kind together, none longer than a deadline.

One thread runs the batches, since they share the devices. The oldest request decides what runs
next, so no kind of request waits for another one forever.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

from ligr_jax.errors import LigrError

Item = TypeVar("Item")
Result = TypeVar("Result")


class Overloaded(LigrError):
    """More requests wait than can be answered in time; the client may try again later."""


@dataclass(frozen=True, eq=False)  # requests with equal arrays are still two requests
class Waiting(Generic[Item, Result]):
    """A request that waits.

    Attributes:
        kind: requests of equal kind can share a batch.
        item: the request.
        since: monotonic time at which it arrived, in seconds.
        future: its result.
    """

    kind: Hashable
    item: Item
    since: float
    future: "Future[Result]"


class Batcher(Generic[Item, Result]):
    """Collects requests into batches and runs them in a thread."""

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Result]],
        largest: int,
        wait_s: float,
        most_waiting: int,
        timeout_s: float,
    ) -> None:
        """
        Args:
            run: function from the requests of a batch to their results, in order.
            largest: largest number of requests of a batch.
            wait_s: time that a request waits for others of its kind, in seconds.
            most_waiting: largest number of waiting requests; others are refused.
            timeout_s: a request that has waited longer is refused: its client may have left.
        """
        self._run, self._largest, self._wait_s = run, largest, wait_s
        self._most_waiting, self._timeout_s = most_waiting, timeout_s
        self._waiting: deque[Waiting[Item, Result]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="batches", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """Number of waiting requests."""
        return len(self._waiting)

    def submit(self, kind: Hashable, item: Item) -> "Future[Result]":
        """Add a request.

        Raises:
            Overloaded: too many requests wait, or the batcher is closed.
        """
        with self._changed:
            if self._closed:
                raise Overloaded("the service is stopping; send the request to another one")
            if len(self._waiting) >= self._most_waiting:
                raise Overloaded(
                    f"{len(self._waiting):,} requests wait; try again later, or raise "
                    "--most-waiting"
                )
            waiting = Waiting(kind, item, time.monotonic(), Future[Result]())
            self._waiting.append(waiting)
            self._changed.notify()
        return waiting.future

    def close(self) -> None:
        """Refuse new requests, and return when the waiting ones are answered."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _loop(self) -> None:
        while batch := self._next():
            self._answer(batch)

    def _next(self) -> list[Waiting[Item, Result]]:
        """Return the next batch once it is full or its oldest request has waited; [] at the end."""
        with self._changed:
            while True:
                self._refuse_late()
                if not self._waiting:
                    if self._closed:
                        return []
                    self._changed.wait()
                    continue
                oldest = self._waiting[0]
                same = [w for w in self._waiting if w.kind == oldest.kind][: self._largest]
                left = oldest.since + self._wait_s - time.monotonic()
                if len(same) == self._largest or left <= 0 or self._closed:
                    for waiting in same:
                        self._waiting.remove(waiting)
                    return same
                self._changed.wait(left)

    def _refuse_late(self) -> None:
        """Refuse the requests that have waited too long."""
        now = time.monotonic()
        while self._waiting and now - self._waiting[0].since > self._timeout_s:
            waiting = self._waiting.popleft()
            if waiting.future.set_running_or_notify_cancel():
                waited = f"{now - waiting.since:.2f} s"
                waiting.future.set_exception(
                    Overloaded(
                        f"the request waited for {waited}, longer than --timeout-ms; try later"
                    )
                )

    def _answer(self, batch: Sequence[Waiting[Item, Result]]) -> None:
        running = [w for w in batch if w.future.set_running_or_notify_cancel()]
        if not running:
            return
        try:
            results = self._run([w.item for w in running])
        except Exception as e:
            if len(running) == 1:
                running[0].future.set_exception(e)
                return
            # One request, such as one of a member whose history is damaged, must not fail others.
            for waiting in running:
                self._answer_alone(waiting)
            return
        for waiting, result in zip(running, results, strict=True):
            waiting.future.set_result(result)

    def _answer_alone(self, waiting: Waiting[Item, Result]) -> None:
        try:
            (result,) = self._run([waiting.item])
        except Exception as e:
            waiting.future.set_exception(e)
        else:
            waiting.future.set_result(result)
