"""A line of progress with the time left: rewritten in place on a terminal, repeated in a log."""

import logging
import time
from collections.abc import Callable

from ligr_jax.messages import REPLACEABLE, rewrites_lines


class Progress:
    """Logs the progress of a count."""

    def __init__(
        self, total: int, log: logging.Logger, unit: str = "step", every_s: float = 5.0
    ) -> None:
        """
        Args:
            total: The count at the end.
            log: Logger of the module that counts.
            unit: Name of what is counted.
            every_s: Seconds between two lines of a log.
        """
        self._total, self._log, self._unit = total, log, unit
        self._every = 0.2 if rewrites_lines() else every_s
        self._began = self._shown = time.monotonic()
        self._first: int | None = None

    def show(self, done: int, note: str = "") -> None:
        """Log a line if the last one is old enough.

        The speed is that since the first call, so that the steps before a resume do not count.

        Args:
            done: The count now.
            note: Text of the line.
        """
        now = time.monotonic()
        if self._first is None:
            self._first, self._began = done, now
        elif now - self._shown < self._every and done < self._total:
            return
        self._shown = now
        speed = (done - self._first) / max(1e-9, now - self._began)
        unfinished = done < self._total
        left = f"  {clock((self._total - done) / speed)} left" if speed and unfinished else ""
        line = f"{self._unit} {done}/{self._total}  {note}{left}"
        self._log.info(line.rstrip(), extra={REPLACEABLE: unfinished})


def log_progress(log: logging.Logger, unit: str) -> Callable[[int, int], None]:
    """Return a function `(done, total)` that logs a line of progress if it is time for one."""
    progress: Progress | None = None

    def show(done: int, total: int) -> None:
        nonlocal progress
        progress = progress or Progress(total, log, unit)
        progress.show(done)

    return show


def clock(seconds: float) -> str:
    """Return seconds as 1:02:03 or 2:03."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"
