"""The start of several processes: all start, or all end with a message that names the missing."""

import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ligr_jax.exit_status import PEER_LOST
from ligr_jax.parallel import processes as joining
from ligr_jax.parallel.rendezvous import PeerMissing, WrongCluster, wait_for_all
from tests.ports import free_port


def outcomes(
    processes: list[tuple[int, int]], timeout_s: float = 600
) -> list[BaseException | None]:
    """Return what `wait_for_all` raises in each process (index, count); here they are threads.

    With the default, which exceeds the limit of a test, a process that waits for it is a failure.
    """
    address = f"localhost:{free_port()}"
    with ThreadPoolExecutor(len(processes)) as pool:
        calls = [
            pool.submit(wait_for_all, address, count, index, timeout_s)
            for index, count in processes
        ]
        return [call.exception(timeout=60) for call in calls]


def test_all_processes_find_each_other_at_once() -> None:
    assert outcomes([(2, 3), (0, 3), (1, 3)]) == [None, None, None]
    assert outcomes([(0, 1)]) == [None]


@pytest.mark.parametrize(
    ("started", "words"),
    [
        ([0, 2], "process 1 of 3 did not start within 1 s"),
        ([0], "processes 1, 2 of 3 did not start within 1 s"),
        ([1, 2], "process 0 of 3 did not start within 1 s"),
    ],
)
def test_every_process_names_those_that_did_not_start(started: list[int], words: str) -> None:
    errors = outcomes([(index, 3) for index in started], timeout_s=1)
    assert all(isinstance(e, PeerMissing) and words in str(e) for e in errors), errors


@pytest.mark.parametrize(
    ("processes", "words"),
    [
        ([(0, 3), (1, 3), (1, 3)], "two processes have the index 1"),
        ([(0, 3), (1, 2)], "process 1 expects 2 processes, and process 0 3"),
    ],
)
def test_processes_that_disagree_end_at_once(processes: list[tuple[int, int]], words: str) -> None:
    errors = outcomes(processes)
    assert all(isinstance(e, WrongCluster) and words in str(e) for e in errors), errors


def test_other_programs_at_the_address_are_recognized() -> None:
    """A program that connects to process 0 is ignored; one that answers instead is an error."""
    port = free_port()
    address = f"localhost:{port}"
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(wait_for_all, address, 2, 0, 20)
        scanner = None
        while scanner is None:
            try:
                scanner = socket.create_connection(("localhost", port))
            except ConnectionRefusedError:
                time.sleep(0.01)
        scanner.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert pool.submit(wait_for_all, address, 2, 1, 20).exception() is None
        assert first.exception() is None
        scanner.close()

    def answer(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"SSH-2.0\r\n")

    with socket.create_server(("localhost", 0)) as listener:
        threading.Thread(target=answer, args=(listener,), daemon=True).start()
        with pytest.raises(WrongCluster, match="another program than process 0 of this run"):
            wait_for_all(f"localhost:{listener.getsockname()[1]}", 2, 1, 20)
    for malformed in ("localhost", ":1", "localhost:port", "localhost:70000"):
        with pytest.raises(WrongCluster, match="is not HOST:PORT"):
            wait_for_all(malformed, 2, 1, 20)


def start(index: int, port: int, tmp_path: Path) -> "subprocess.Popen[str]":
    """Start one of three processes of `ligr train`."""
    words = ["train", "--data", str(tmp_path), "--out", str(tmp_path / "run")]
    cluster = {
        "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
        "JAX_NUM_PROCESSES": "3",
        "JAX_PROCESS_ID": str(index),
        "LIGR_JOIN_TIMEOUT_S": "3",
        "LIGR_ALLOCATOR": "none",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "ligr_jax", *words],
        env={**os.environ, **cluster},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_commands_end_in_one_line_if_a_process_does_not_start_or_is_killed(
    tmp_path: Path,
) -> None:
    port = free_port()
    processes = [start(index, port, tmp_path) for index in (0, 2)]
    printed = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [PEER_LOST] * 2, printed
    for text in printed:
        assert text.startswith("ligr train: process 1 of 3 did not start within 3 s")
        assert text.count("\n") == 1

    killed = socket.create_server(("localhost", 0))  # a process 0 that ends while others wait
    second = start(2, killed.getsockname()[1], tmp_path)
    connection, _ = killed.accept()
    connection.recv(100)
    connection.close()
    killed.close()
    text = second.communicate(timeout=60)[0]
    assert second.returncode == PEER_LOST
    assert text.startswith("ligr train: process 0 of 3 ended before all processes had started")


def test_a_process_that_is_killed_while_it_waits_ends_the_others() -> None:
    port = free_port()
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(wait_for_all, f"localhost:{port}", 4, index, 60) for index in (0, 1)]
        code = (
            "from ligr_jax.parallel.rendezvous import wait_for_all\n"
            f"print(flush=True)\nwait_for_all('localhost:{port}', 4, 2, 60)"
        )
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.5)
        child.kill()
        child.communicate()
        errors = [call.exception(timeout=20) for call in calls]
    words = "process 2 of 4 ended before all processes had started (not yet started: 3)"
    assert all(isinstance(e, PeerMissing) and words in str(e) for e in errors), errors


def test_tasks_of_slurm_meet_at_the_address_that_jax_finds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    met = []

    def wait(*arguments: object) -> None:
        met.append(arguments)
        raise PeerMissing

    monkeypatch.setattr(joining, "wait_for_all", wait)
    monkeypatch.delenv("JAX_COORDINATOR_ADDRESS", raising=False)
    values = {"JOB_ID": "7", "STEP_NODELIST": "node[3-5],other", "NTASKS": "4", "PROCID": "2"}
    for name, value in {**values, "LOCALID": "1", "STEP_NUM_TASKS": "4"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("LIGR_JOIN_TIMEOUT_S", "20")
    with pytest.raises(PeerMissing):
        joining.join_processes()
    assert met == [(f"node3:{65536 - 2**12 + 7}", 4, 2, 20)]
