"""Requests to stop: signals ask a command to save its work and to end.

SIGINT (Ctrl-C), SIGTERM, SIGHUP and SIGUSR1 have one meaning for a command that saves its work. A
signal that the starter of the process ignores stays ignored: `nohup` ignores SIGHUP, and a shell
ignores SIGINT for background commands.

The command line listens from its first moment (`listen`). A thread of its own hears the signals, so
that neither an import, a compilation nor a lock delays them. Until a command calls
`StopRequest.defer`, there is nothing to save, and the first signal ends the process. Afterwards the
first signal is noted, and the command saves at its next step; a second Ctrl-C ends the process
without waiting.

Libraries use `stop_request`: it yields the request of the command line, or installs handlers for
the duration of a block.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from ligr_jax.exit_status import INTERRUPTED, PREEMPTED

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
# A terminal and a parent process may both forward one Ctrl-C.
_SAME_CTRL_C_S = 0.5


class Interrupted(KeyboardInterrupt):
    """A signal ended a command that saves nothing."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_status = 128 + number


class StopRequest:
    """Whether this process was asked to stop, and by what."""

    def __init__(self) -> None:
        self.command = ""
        self.reason = ""
        self.interrupted: Interrupted | None = None  # raised in the main thread
        self.done = False  # the command has ended, and a signal changes nothing
        self._set = threading.Event()
        self._lock = threading.RLock()
        self._deferred = self._postponed = False
        self._on_request: list[Callable[[], None]] = []
        self._on_exit: list[Callable[[int, str], None]] = []
        self._first_ctrl_c = float("inf")

    def is_set(self) -> bool:
        return self._set.is_set()

    def request(self, reason: str) -> None:
        """Ask to stop; `reason` is what messages name. Later requests change nothing."""
        with self._lock:
            if self._set.is_set():
                return
            self.reason = reason
            self._set.set()
            callbacks = list(self._on_request)
        for callback in callbacks:
            callback()

    def on_request(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when a stop is requested; at once if it was requested before."""
        with self._lock:
            self._on_request.append(callback)
            requested = self._set.is_set()
        if requested:
            callback()

    def on_exit(self, callback: Callable[[int, str], None]) -> None:
        """Call `callback(status, message)` before `exit` ends the process."""
        self._on_exit.append(callback)

    def defer(self) -> None:
        """From now on a signal is noted, and the command must save and end by itself."""
        with self._lock:
            self._deferred = True

    def postpone(self, seconds: float) -> None:
        """A signal ends the process at `end_postponed`, or `seconds` after it came."""
        self._deferred = self._postponed = True
        timer = threading.Timer(seconds, self._end_if_postponed)
        timer.daemon = True
        self.on_request(timer.start)

    def end_postponed(self) -> None:
        """End the process if a signal came since `postpone`."""
        with self._lock:
            if not self._set.is_set():
                self._deferred = self._postponed = False
        self._end_if_postponed()

    def _end_if_postponed(self) -> None:
        if self._postponed and self._set.is_set():
            self.exit(PREEMPTED, _end_of(self.command, self.reason))

    def is_second_ctrl_c(self, number: int) -> bool:
        """Note a signal; whether it is Ctrl-C pressed again."""
        if number != signal.SIGINT:
            return False
        now = time.monotonic()
        self._first_ctrl_c = min(self._first_ctrl_c, now)
        return now - self._first_ctrl_c > _SAME_CTRL_C_S

    def hear(self, number: int, saves: bool) -> None:
        """React to a signal in the thread that listens for the command line."""
        name = signal.Signals(number).name
        if self.is_second_ctrl_c(number):
            self.exit(INTERRUPTED, f"ligr {self.command}: interrupted twice; ended at once")
        with self._lock:
            first = saves and not self.done and not self._set.is_set()
            ends_now = first and not self._deferred
            if first and self._deferred and _is_terminal():
                _print_raw(f"\n{name}: saving; Ctrl-C again ends at once")
        if ends_now:
            self.exit(PREEMPTED, _end_of(self.command, name))
        self.request(name)

    def exit(self, status: int, message: str) -> None:
        """End the process from any thread, whatever its main thread does."""
        _print_raw(message)
        for callback in self._on_exit:
            with contextlib.suppress(Exception):
                callback(status, message)
        os._exit(status)


_command_line: StopRequest | None = None


def hold_signals() -> None:
    """Hold signals back until `release_signals`, also across an exec."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def release_signals() -> None:
    """Deliver the signals that came since `hold_signals`."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextlib.contextmanager
def held_signals() -> Iterator[None]:
    """Hold signals back inside the block; worker processes started in it call `end_silently`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_silently() -> None:
    """Let Ctrl-C end a worker process without a traceback; its parent prints the message."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    release_signals()


def is_worker() -> bool:
    """Whether `multiprocessing` started this process."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


def listen(command: str, saves: bool) -> StopRequest:
    """Listen for signals until the process ends. The command line calls it once, with signals held.

    Args:
        command: What messages call the command.
        saves: Whether the command saves its work, so that running it again continues. For other
            commands SIGINT, SIGTERM and SIGHUP raise `Interrupted` in the main thread.
    """
    global _command_line
    request = _command_line = StopRequest()
    request.command = command

    def handle(number: int, frame: FrameType | None) -> None:
        if not saves and not request.done:
            request.interrupted = Interrupted(number)
            raise request.interrupted

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    heard = set()
    for number in SIGNALS:
        if (saves or number != signal.SIGUSR1) and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handle)
            heard.add(int(number))

    def hear_all() -> None:
        while True:
            for number in os.read(reader, 64):
                if number in heard:
                    request.hear(number, saves)

    threading.Thread(target=hear_all, name="signals", daemon=True).start()
    return request


def command_line_request() -> StopRequest | None:
    """The request of the command line; None where a library is used."""
    return _command_line


@contextlib.contextmanager
def stop_request() -> Iterator[StopRequest]:
    """The request of the command line, or one that signals set inside this block.

    Without a command line, handlers are installed for the block, in the main thread only: in other
    threads nothing changes. A second Ctrl-C raises KeyboardInterrupt.
    """
    if _command_line is not None:
        yield _command_line
        return
    request = StopRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        if request.is_second_ctrl_c(number):
            raise KeyboardInterrupt
        request.request(signal.Signals(number).name)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, handle)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _end_of(command: str, reason: str) -> str:
    return f"ligr {command}: stopped by {reason}; run the same command again"


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _print_raw(line: str) -> None:
    """Print to stderr past Python's buffers, whose lock another thread may hold."""
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())
