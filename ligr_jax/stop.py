"""Signals that ask a command to save its work and to end.

SIGINT (Ctrl-C), SIGTERM, SIGHUP and SIGUSR1 have the same meaning for a command that saves its
work. A signal that the parent of the process ignores stays ignored: `nohup` ignores SIGHUP, and a
shell ignores SIGINT for background commands.

The command line handles signals from the start of the process (`listen`). A thread receives them,
so that no import, compilation or lock delays them. Until a command calls `StopRequest.defer` there
is nothing to save, and the first signal ends the process. After that call, the first signal is
recorded, and the command saves at its next step; a second Ctrl-C ends the process immediately.

Libraries use `stop_request`. It yields the request of the command line, or it installs handlers for
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
# A terminal and a parent process may both send the signal of one Ctrl-C.
_SAME_CTRL_C_S = 0.5


class Interrupted(KeyboardInterrupt):
    """A signal ended a command that saves nothing."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_status = 128 + number


class StopRequest:
    """Whether this process has to stop, and why.

    Attributes:
        command: Name of the command, for messages.
        reason: What asked to stop, e.g. the name of a signal; "" if nothing did.
        interrupted: The exception that a signal raised in the main thread, if any.
        done: Whether the command has ended. A signal then changes nothing.
    """

    def __init__(self) -> None:
        self.command = ""
        self.reason = ""
        self.interrupted: Interrupted | None = None
        self.done = False
        self._set = threading.Event()
        self._lock = threading.RLock()
        self._deferred = self._postponed = False
        self._on_request: list[Callable[[], None]] = []
        self._on_exit: list[Callable[[int, str], None]] = []
        self._first_ctrl_c = float("inf")

    def is_set(self) -> bool:
        """Return whether this process has to stop."""
        return self._set.is_set()

    def request(self, reason: str) -> None:
        """Ask to stop. Later requests change nothing.

        Args:
            reason: What asks to stop, for messages.
        """
        with self._lock:
            if self._set.is_set():
                return
            self.reason = reason
            self._set.set()
            callbacks = list(self._on_request)
        for callback in callbacks:
            callback()

    def on_request(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when a stop is requested, or now if it already was."""
        with self._lock:
            self._on_request.append(callback)
            requested = self._set.is_set()
        if requested:
            callback()

    def on_exit(self, callback: Callable[[int, str], None]) -> None:
        """Call `callback(status, message)` before `exit` ends the process."""
        self._on_exit.append(callback)

    def defer(self) -> None:
        """Record signals from now on; the command itself must save and end."""
        with self._lock:
            self._deferred = True

    def postpone(self, seconds: float) -> None:
        """Delay the end of the process by a signal.

        The process ends when `end_postponed` is called, or `seconds` after the signal.
        """
        self._deferred = self._postponed = True
        timer = threading.Timer(seconds, self._end_if_postponed)
        timer.daemon = True
        self.on_request(timer.start)

    def end_postponed(self) -> None:
        """End the process if it has received a signal since `postpone`."""
        with self._lock:
            if not self._set.is_set():
                self._deferred = self._postponed = False
        self._end_if_postponed()

    def _end_if_postponed(self) -> None:
        if self._postponed and self._set.is_set():
            self.exit(PREEMPTED, _end_of(self.command, self.reason))

    def is_second_ctrl_c(self, number: int) -> bool:
        """Record a signal and return whether it is a second Ctrl-C."""
        if number != signal.SIGINT:
            return False
        now = time.monotonic()
        self._first_ctrl_c = min(self._first_ctrl_c, now)
        return now - self._first_ctrl_c > _SAME_CTRL_C_S

    def on_signal(self, number: int, saves: bool) -> None:
        """Handle a signal in the thread that receives the signals of the command line.

        Args:
            number: Number of the signal.
            saves: Whether the command saves its work.
        """
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
        """End the process from any thread, even while its main thread is blocked.

        Args:
            status: Exit status.
            message: Last line on stderr.
        """
        _print_raw(message)
        for callback in self._on_exit:
            with contextlib.suppress(Exception):
                callback(status, message)
        os._exit(status)


_command_line: StopRequest | None = None


def block_signals() -> None:
    """Block signals until `unblock_signals`; an exec keeps them blocked."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def unblock_signals() -> None:
    """Deliver the signals that have arrived since `block_signals`."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Block signals inside the block; worker processes started in it call `end_silently`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_silently() -> None:
    """Let Ctrl-C end a worker process without a traceback; the parent prints the message."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    unblock_signals()


def is_worker() -> bool:
    """Return whether `multiprocessing` started this process."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


def listen(command: str, saves: bool) -> StopRequest:
    """Handle signals until the process ends.

    The command line calls this function once, while signals are blocked.

    Args:
        command: Name of the command, for messages.
        saves: Whether the command saves its work, so that running it again continues. For other
            commands SIGINT, SIGTERM and SIGHUP raise `Interrupted` in the main thread.

    Returns:
        The request that signals set.
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
    handled = set()
    for number in SIGNALS:
        if (saves or number != signal.SIGUSR1) and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handle)
            handled.add(int(number))

    def receive() -> None:
        while True:
            for number in os.read(reader, 64):
                if number in handled:
                    request.on_signal(number, saves)

    threading.Thread(target=receive, name="signals", daemon=True).start()
    return request


def command_line_request() -> StopRequest | None:
    """Return the request of the command line; None in a program that uses the library."""
    return _command_line


@contextlib.contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Yield the request of the command line, or one that signals set during the block.

    Without a command line, the main thread installs handlers for the duration of the block, and a
    second Ctrl-C raises KeyboardInterrupt. Other threads cannot install handlers.
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
