"""Batches that are on their devices before the step that uses them is dispatched.

A thread reads batches and starts their transfer, two batches ahead. A step therefore waits only if
the pipeline makes fewer tokens per second than the devices train on.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from ligr_jax.data.pipeline import TrainBatches
from ligr_jax.data.unique_ids import MappedBatch

AHEAD = 2  # batches


class _Ready(NamedTuple):
    """A batch on its devices, the states of the iterators after it, or what went wrong."""

    inputs: Any
    states: list[dict[str, int]]
    error: BaseException | None = None


class Prefetch:
    """Inputs of steps, in order. Use it in a `with` block, which ends the thread.

    `states` has the states of the iterators after the last batch that `next` returned.
    """

    def __init__(
        self,
        sources: Sequence[TrainBatches],
        put: Callable[[Sequence[MappedBatch]], Any],
    ) -> None:
        """
        Args:
            sources: iterators of which a step gets one batch each. The thread owns them until the
                end of the block.
            put: starts the transfer of these batches; returns the input of the step.
        """
        self._sources, self._put = sources, put
        self.states = [source.get_state() for source in sources]
        self._ready: queue.Queue[_Ready] = queue.Queue()
        self._room = threading.Semaphore(AHEAD)
        self._first = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)

    def __enter__(self) -> "Prefetch":
        """Start the thread; return when the first batch is ready, as part of the start of a run."""
        self._thread.start()
        self._first.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._room.release()
        self._thread.join()
        self._ready = queue.Queue()  # unused batches free their shared memory now
        for source in self._sources:
            source.close()

    def next(self, in_flight: Any) -> tuple[Any, float]:
        """Return the next input, and the time in seconds that the devices waited for it.

        Args:
            in_flight: arrays of the step that was dispatched last. While it runs, no device waits.
        """
        if self._ready.empty():
            jax.block_until_ready(in_flight)
        began = time.perf_counter()
        ready = self._ready.get()
        waited = time.perf_counter() - began
        if ready.error is not None:
            raise ready.error
        self._room.release()
        self.states = ready.states
        return ready.inputs, waited

    def _run(self) -> None:
        try:
            while True:
                self._room.acquire()
                if self._stopped.is_set():
                    return
                inputs = self._put([next(source) for source in self._sources])
                states = [source.get_state() for source in self._sources]
                self._ready.put(_Ready(inputs, states))
                self._first.set()
        except BaseException as e:  # raised by the step that would have used the batch
            self._ready.put(_Ready(None, [], e))
            self._first.set()
