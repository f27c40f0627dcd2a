"""SIGTERM means "save and go": schedulers send it before they take a machine away."""

import contextlib
import signal
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def on_sigterm(do: Callable[[], None]) -> Iterator[None]:
    """Calls `do` on SIGTERM inside the block. Only a main thread can; elsewhere nothing changes."""
    try:
        before = signal.signal(signal.SIGTERM, lambda *_: do())
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
