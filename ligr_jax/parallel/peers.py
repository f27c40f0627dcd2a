"""Messages between the processes of one run, outside of collectives.

A process that fails, or that a signal ends before there is anything to save, announces its end. The
other processes then end within seconds with the same exit status; otherwise they would wait for it
in a collective. Once all processes are ready to train, a signal to one of them stops all at the
same point of their work, so that they save one state together.

Messages are keys of JAX's coordination service, which process 0 hosts. A thread of each process
polls the keys, so that messages arrive even while the main thread is blocked.
"""

import contextlib
import json
import re
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

from ligr_jax.errors import words_of
from ligr_jax.exit_status import FAILED, PEER_LOST
from ligr_jax.stop import StopRequest, command_line_request

_POLL_S = 0.5  # between two polls of the messages
_LEAVE_S = 5.0  # how long process 0 waits for the others to end before it ends itself
_UNREACHABLE_S = 10.0  # after which process 0 counts as lost
_REPLY_MS = 60_000
_READY_MS = 24 * 3600 * 1000  # compilation takes longer in some processes than in others
_EVENTS = "ligr/events/"
# Words of XLA's errors when a collective fails because a process has ended.
_PEER_IS_GONE = re.compile(
    "gloo|connection|socket|closed by peer|unavailable|deadline|heartbeat|timed? ?out|nccl|peer",
    re.IGNORECASE,
)


class Peers:
    """This process's link to the other processes of its run."""

    def __init__(self, client: Any, index: int, count: int) -> None:
        """
        Args:
            client: `jax.distributed`'s client of the coordination service.
            index: Index of this process.
            count: Number of processes.
        """
        self.index, self.count = index, count
        self._client = client
        self._stop = StopRequest()
        self._ends = False  # whether the failure of a peer ends this process
        self._lock = threading.RLock()
        self._calls = 0  # of `stop_agreed`
        self._stop_at: int | None = None
        self._barriers = 0
        self._gathered: dict[str, int] = {}  # calls of `gather` by name
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="peers", daemon=True).start()

    def attach(self, stop: StopRequest, ends: bool) -> None:
        """Share the stop request of this process with its peers.

        Args:
            stop: The stop request of this process.
            ends: Whether the failure of a peer ends this process. It does in a command, but not in
                a program that uses the library.
        """
        if stop is not self._stop and ends:
            stop.on_exit(self.leave)
        self._stop, self._ends = stop, ends

    def wait_until_ready(self) -> None:
        """Return when all processes are ready for the first step; later they stop together."""
        self._barriers += 1
        self._client.wait_at_barrier(f"ligr_ready_{self._barriers}", _READY_MS)

    def broadcast_from_first(self, name: str, text: str) -> str:
        """Return the text of process 0; see `processes.broadcast_from_first`."""
        key = f"ligr/from_first/{name}"
        if self.index == 0:
            self._client.key_value_set(key, text, allow_overwrite=True)
            return text
        value: str = self._client.blocking_key_value_get(key, _READY_MS)
        return value

    def gather(self, name: str, text: str) -> list[str]:
        """Return the texts of all processes; see `processes.gather_texts`."""
        call = self._gathered[name] = self._gathered.get(name, 0) + 1
        key = f"ligr/gathered/{name}/{call}"
        self._client.key_value_set(f"{key}/{self.index}", text, allow_overwrite=True)
        get = self._client.blocking_key_value_get
        return [str(get(f"{key}/{process}", _READY_MS)) for process in range(self.count)]

    def stop_agreed(self) -> bool:
        """Return whether to stop now; see `processes.stop_agreed`."""
        with self._lock:  # held while the processes agree
            self._calls += 1
            return self._stop_at is not None and self._calls >= self._stop_at

    def leave(self, status: int, message: str) -> None:
        """Announce that this process is about to end.

        Args:
            status: Exit status.
            message: What this process prints.
        """
        departure = json.dumps([status, message])
        # In a thread, because calls to process 0 block if it has ended.
        thread = threading.Thread(target=self._announce, args=(departure,), daemon=True)
        thread.start()
        thread.join(_LEAVE_S)

    def _announce(self, departure: str) -> None:
        self._client.key_value_set(f"{_EVENTS}left/{self.index}", departure, allow_overwrite=True)
        while self.index == 0 and len(self._departures()) < self.count:
            time.sleep(_POLL_S / 10)

    def _departures(self) -> dict[int, tuple[int, str]]:
        """Return status and message of the processes that have announced their end, by index."""
        return {
            int(key.rpartition("/")[2]): tuple(json.loads(value))
            for key, value in self._client.key_value_dir_get(f"{_EVENTS}left/")
        }

    def departure(self) -> tuple[int, str] | None:
        """Return the exit status and a message of another process that ends; None if none does."""
        departures = self._departures()
        departures.pop(self.index, None)
        # Prefer the message of the process that failed to messages about its loss.
        for process, (status, message) in sorted(
            departures.items(), key=lambda item: item[1][0] == PEER_LOST
        ):
            text = message.partition(": ")[2]  # without the name of the command
            return status, text if text.startswith("process ") else f"process {process}: {text}"
        return None

    def exit(self, status: int, message: str) -> None:
        """End this process from any thread, and thereby all other processes.

        Args:
            status: Exit status.
            message: Last line on stderr, without the name of the command.
        """
        self._stop.exit(status, f"ligr train (process {self.index} of {self.count}): {message}")

    def close(self) -> None:
        """Stop polling, because the work is done."""
        self._closed.set()

    def _watch(self) -> None:
        reached = time.monotonic()  # when process 0 last answered
        is_announced = False  # whether this process has asked all others to stop
        while not self._closed.wait(_POLL_S):
            try:
                if self._stop.is_set() and not is_announced and self._stop_at is None:
                    is_announced = True
                    reason = f"{self._stop.reason} in process {self.index}"
                    self._client.key_value_set(f"{_EVENTS}stop", reason, allow_overwrite=True)
                events = dict(self._client.key_value_dir_get(_EVENTS))
                departed = self.departure() if self._ends and len(events) else None
                if f"{_EVENTS}stop" in events and self._stop_at is None and not departed:
                    self._agree_to_stop(events[f"{_EVENTS}stop"])
                reached = time.monotonic()
            except Exception:
                if time.monotonic() - reached < _UNREACHABLE_S or not self._ends:
                    continue
                departed = (PEER_LOST, f"process 0 of {self.count} does not answer")
            if departed and not self._closed.is_set():
                self.exit(*departed)

    def _agree_to_stop(self, reason: str) -> None:
        """Choose the first call of `stop_agreed` that no process has made yet, and stop there."""
        with self._lock:
            self._client.key_value_set(f"ligr/calls/{self.index}", str(self._calls), True)
            calls = [
                int(self._client.blocking_key_value_get(f"ligr/calls/{process}", _REPLY_MS))
                for process in range(self.count)
            ]
            self._stop_at = max(calls) + 1
        self._stop.request(reason)


_peers: Peers | None = None


def peers() -> Peers:
    """Return this process's link to its peers; `jax.distributed` must be initialized."""
    global _peers
    if _peers is None:
        from jax._src.distributed import global_state

        _peers = Peers(global_state.client, global_state.process_id, global_state.num_processes)
        stop = command_line_request()
        if stop is not None:
            _peers.attach(stop, ends=True)
            stop.end_postponed()
    return _peers


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """End all processes of this run if this one fails inside the block."""
    if _peers is None:
        yield
        return
    try:
        yield
    except SystemExit:  # all stop together
        raise
    except BaseException as e:
        _fail(_peers, e)
    finally:
        _peers.close()


def _fail(link: Peers, error: BaseException) -> None:
    """Print why this process ends, announce it to the peers, and end the process.

    A normal exit of Python would wait minutes for the peers.
    """
    reason = words_of(error)
    if reason is None and _PEER_IS_GONE.search(str(error)):
        departed = None
        with contextlib.suppress(Exception):
            departed = link.departure()
        lost = f"another process was lost ({str(error).splitlines()[0][:200]})"
        reason = departed or (PEER_LOST, f"{lost}; run the same command again in all processes")
    elif reason is None:
        traceback.print_exc()
        reason = (FAILED, f"{type(error).__name__}: {error}")
    sys.stdout.flush()
    sys.stderr.flush()
    link.exit(*reason)
