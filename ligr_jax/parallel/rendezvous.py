"""The start of a run with several processes: each one reports to process 0 before JAX joins them.

JAX waits until all processes have connected. If one is missing, JAX aborts the others with a stack
trace that does not say which one. Therefore process 0 first listens at the coordinator's address
itself. Every other process sends its index and waits; process 0 answers when all have reported. If
a process does not report in time, or if it ends after its report, all others end with a message
that names it. Process 0 closes the port before JAX listens there.
"""

import contextlib
import json
import os
import selectors
import socket
import time
from typing import Any

from ligr_jax.errors import LigrError
from ligr_jax.exit_status import PEER_LOST

_RETRY_S = 0.2
_ANSWER_S = 10.0  # after the time limit, for the answer of process 0, which names the missing ones
_PORT_S = 15.0  # for a process 0 of an earlier start to free the port
_LONGEST = 4096  # bytes of a message


class PeerMissing(LigrError):
    """A process of this run did not start, or it ended before all had started."""

    exit_status = PEER_LOST


class WrongCluster(LigrError):
    """The processes disagree on their number or their indices, or the address is wrong."""


def wait_for_all(address: str, count: int, index: int, timeout_s: float) -> None:
    """Return when all processes of the run have called this function.

    Args:
        address: HOST:PORT of process 0, the same in all processes.
        count: number of processes.
        index: index of this process.
        timeout_s: seconds to wait for the other processes.

    Raises:
        PeerMissing: a process did not come, or it ended.
        WrongCluster: two processes have one index, the processes have different counts, or the
            address is malformed, in use, or that of another program.
    """
    deadline = time.monotonic() + timeout_s
    if index == 0:
        port = _split(os.environ.get("JAX_COORDINATOR_BIND_ADDRESS") or address)[1]
        with _listen(port, address, min(deadline, time.monotonic() + _PORT_S)) as listener:
            reason = _Roll(listener, count).call(deadline, timeout_s)
    else:
        reason = _report(address, count, index, deadline, timeout_s)
    if reason:
        error, message = reason
        raise (WrongCluster if error == WrongCluster.__name__ else PeerMissing)(message)


# Name of an exception, and its message.
_Reason = tuple[str, str]


class _Roll:
    """Process 0's list of the processes that have reported."""

    def __init__(self, listener: socket.socket, count: int) -> None:
        self._listener, self._count = listener, count
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._received: dict[socket.socket, bytes] = {}  # of connections without an index
        self._reported: dict[int, socket.socket] = {}

    def call(self, deadline: float, timeout_s: float) -> _Reason | None:
        """Wait for all processes, send them the outcome, and return it: None if all reported."""
        reason = None
        while reason is None and len(self._reported) < self._count - 1:
            left = deadline - time.monotonic()
            if left <= 0:
                reason = _missing(self._absent(), self._count, timeout_s)
                break
            for key, _ in self._selector.select(left):
                reason = reason or self._read(key.fileobj)
        answer = json.dumps({"reason": reason}).encode() + b"\n"
        for connection in [*self._reported.values(), *self._received]:
            with contextlib.suppress(OSError):  # that process has ended
                connection.sendall(answer)
            connection.close()
        self._selector.close()
        return reason

    def _absent(self) -> list[int]:
        return [k for k in range(1, self._count) if k not in self._reported]

    def _read(self, source: Any) -> _Reason | None:
        """Accept a connection, or read from one; return a reason to end."""
        if source is self._listener:
            connection, _ = self._listener.accept()
            connection.settimeout(_ANSWER_S)
            self._received[connection] = b""
            self._selector.register(connection, selectors.EVENT_READ)
            return None
        try:
            data = source.recv(_LONGEST)
        except OSError:
            data = b""
        if source in self._received:
            return self._identify(source, data)
        index = next(k for k, connection in self._reported.items() if connection is source)
        self._selector.unregister(source)
        absent = ", ".join(map(str, self._absent())) or "none"
        return PeerMissing.__name__, (
            f"process {index} of {self._count} ended before all processes had started (not yet "
            f"started: {absent}); see its output, and run the same command again in all processes"
        )

    def _identify(self, source: socket.socket, data: bytes) -> _Reason | None:
        """Note which process a connection is; drop connections of other programs."""
        received = self._received[source] + data
        if data and not received.endswith(b"\n") and len(received) < _LONGEST:
            self._received[source] = received
            return None
        del self._received[source]
        try:
            message = json.loads(received)
            index, count = int(message["index"]), int(message["count"])
        except (ValueError, TypeError, KeyError):
            self._selector.unregister(source)
            source.close()
            return None
        wrong = ""
        if count != self._count:
            wrong = f"process {index} expects {count} processes, and process 0 {self._count}"
        elif index in self._reported:
            wrong = f"two processes have the index {index}"
        self._reported.setdefault(index, source)
        if self._reported[index] is not source:
            self._received[source] = b""  # it is answered too
        return (WrongCluster.__name__, f"{wrong}; correct their environments") if wrong else None


def _missing(absent: list[int], count: int, timeout_s: float) -> _Reason:
    names = ", ".join(map(str, absent))
    noun = "process" if len(absent) == 1 else "processes"
    return PeerMissing.__name__, (
        f"{noun} {names} of {count} did not start within {timeout_s:g} s (LIGR_JOIN_TIMEOUT_S); "
        "see their output, and run the same command again in all processes"
    )


def _report(
    address: str, count: int, index: int, deadline: float, timeout_s: float
) -> _Reason | None:
    """Report to process 0 and return its answer: None if all processes have reported."""
    host, port = _split(address)
    while True:
        left = deadline - time.monotonic()
        try:
            connection = socket.create_connection((host, port), timeout=max(left, _RETRY_S))
            break
        except OSError as e:
            if left <= 0:
                return PeerMissing.__name__, (
                    f"process 0 of {count} did not start within {timeout_s:g} s "
                    f"(LIGR_JOIN_TIMEOUT_S), or {address} cannot be reached from here ({e}); see "
                    "its output, and run the same command again in all processes"
                )
            time.sleep(_RETRY_S)
    with connection:
        received = b""
        try:
            connection.sendall(json.dumps({"index": index, "count": count}).encode() + b"\n")
            while not received.endswith(b"\n") and len(received) < _LONGEST:
                connection.settimeout(max(0.0, deadline - time.monotonic()) + _ANSWER_S)
                data = connection.recv(_LONGEST)
                if not data:
                    break
                received += data
        except OSError:
            pass
    if not received:
        return PeerMissing.__name__, (
            f"process 0 of {count} ended before all processes had started; see its output, and run "
            "the same command again in all processes"
        )
    try:
        reason = json.loads(received)["reason"]
        return (str(reason[0]), str(reason[1])) if reason else None
    except (ValueError, TypeError, KeyError, IndexError):
        return WrongCluster.__name__, (
            f"another program than process 0 of this run answers at {address}; choose another port"
        )


def _split(address: str) -> tuple[str, int]:
    """Return host and port."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise WrongCluster(f"the coordinator's address {address!r} is not HOST:PORT; correct it")
    return host.strip("[]"), int(port)


def _listen(port: int, address: str, deadline: float) -> socket.socket:
    """Listen on all interfaces of this host, as JAX does."""
    is_dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if is_dual else socket.AF_INET
    while True:
        try:
            return socket.create_server(
                ("", port), family=family, dualstack_ipv6=is_dual, backlog=1024
            )
        except OSError as e:
            if time.monotonic() >= deadline:
                raise WrongCluster(
                    f"process 0 cannot listen on port {port} ({e.strerror}); end the program that "
                    f"uses it, or choose another port than that of {address}"
                ) from e
            time.sleep(_RETRY_S)
