"""One line of progress with the time left: rewritten on a terminal, now and then in a log."""

import sys
import time
from collections.abc import Callable


class Progress:
    """Shows how far a count has come."""

    def __init__(
        self, total: int, say: Callable[[str], None], unit: str = "step", every_s: float = 5.0
    ) -> None:
        self._total, self._say, self._unit = total, say, unit
        self._every = 0.2 if sys.stderr.isatty() else every_s
        self._began = self._shown = time.monotonic()
        self._first: int | None = None

    def show(self, done: int, note: str = "") -> None:
        """done: of `total`; what was done before the first call (a resume) is not extrapolated."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._began = done, now
        elif now - self._shown < self._every and done < self._total:
            return
        self._shown = now
        speed = (done - self._first) / max(1e-9, now - self._began)
        left = (
            f"  {clock((self._total - done) / speed)} left" if speed and done < self._total else ""
        )
        line = f"{self._unit} {done}/{self._total}  {note}{left}"
        if sys.stderr.isatty():
            end = "\n" if done >= self._total else ""
            print(f"\r{line}\x1b[K", end=end, file=sys.stderr, flush=True)
        else:
            self._say(line)


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"
