"""Checkpoints by time: `train.checkpoint_minutes` after the last, at one step in all processes."""

import itertools
import json
import time

from ligr_jax.parallel.processes import broadcast_from_first

_LOOK_S = 10.0  # approximate seconds between two decisions of process 0
_clocks = (
    itertools.count()
)  # equal in all processes, because they create their clocks in the same order


class SaveClock:
    """Decides when to save. Process 0 decides, and announces the step of its next decision."""

    def __init__(self, minutes: float, first: int) -> None:
        """
        Args:
            minutes: minutes between two saves; 0 for never.
            first: number of steps that are done.
        """
        self._limit = 60 * minutes
        self._name = f"save_clock/{next(_clocks)}"
        self._saved = self._looked = time.monotonic()
        self._step, self._next = first, first + 1

    def due(self, step: int) -> bool:
        """Return whether to save at a step; all processes call it at the same steps."""
        if not self._limit or step < self._next:
            return False
        now = time.monotonic()
        seconds = max(1e-6, (now - self._looked) / (step - self._step))  # of a step
        look = step + max(1, int(min(_LOOK_S, self._limit) / seconds))
        text = json.dumps([now - self._saved >= self._limit, look])
        is_due, self._next = json.loads(broadcast_from_first(f"{self._name}/{step}", text))
        self._looked, self._step = now, step
        return bool(is_due)

    def saved(self) -> None:
        """Start the interval until the next save."""
        self._saved = time.monotonic()
