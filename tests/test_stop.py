"""Signals ask a command to stop: at once where nothing can be saved, else after saving."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ligr_jax.exit_status import INTERRUPTED, PREEMPTED
from ligr_jax.stop import SIGNALS, stop_request

# A command in miniature: its main thread waits where no signal wakes it up.
COMMAND = """
import signal, sys, threading
from ligr_jax.stop import *
block_signals()
signal.signal(signal.SIGHUP, signal.SIG_IGN)
stop = listen("work", saves=%(saves)s)
if %(deferred)s:
    stop.defer()
    stop.on_request(lambda: print("saving", flush=True))
unblock_signals()
print("ready", flush=True)
threading.Lock().acquire() and threading.Event().wait(60)
"""


def start(saves: bool, deferred: bool) -> subprocess.Popen[str]:
    code = COMMAND % {"saves": saves, "deferred": deferred}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    child = subprocess.Popen([sys.executable, "-c", code], **pipes)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


@pytest.mark.parametrize("number", [s for s in SIGNALS if s != signal.SIGHUP])
def test_before_anything_can_be_saved_a_signal_ends_the_command_at_once(
    number: signal.Signals,
) -> None:
    child = start(saves=True, deferred=False)
    child.send_signal(signal.SIGHUP)  # ignored by its parent, as by nohup
    child.send_signal(number)
    _, said = child.communicate()
    assert child.returncode == PREEMPTED
    assert said == f"ligr work: stopped by {number.name}; run the same command again\n"


def test_a_second_ctrl_c_ends_what_is_saving() -> None:
    child = start(saves=True, deferred=True)
    child.send_signal(signal.SIGINT)
    assert child.stdout is not None
    assert child.stdout.readline() == "saving\n"
    child.send_signal(signal.SIGTERM)  # schedulers repeat it, and that changes nothing
    while child.poll() is None:  # the terminal and a parent may both forward one Ctrl-C
        child.send_signal(signal.SIGINT)
        time.sleep(0.05)
    assert child.returncode == INTERRUPTED
    assert child.communicate()[1] == "ligr work: interrupted twice; ended at once\n"


def test_in_a_library_handlers_last_as_long_as_the_block() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_request() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.is_set()
            os.kill(os.getpid(), signal.SIGUSR1)
            assert stop.is_set()
            assert stop.reason == "SIGUSR1"
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before[SIGNALS.index(signal.SIGHUP)] or signal.SIG_DFL)
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_commands_hear_signals_before_they_import_anything_slow(tmp_path: Path) -> None:
    """Also across the exec that changes the allocator."""
    arguments = ["--data", str(tmp_path), "--out", str(tmp_path / "out"), "track.wandb=off"]
    for command, number, status in (
        ("train", signal.SIGINT, PREEMPTED),
        ("train", signal.SIGTERM, PREEMPTED),
        ("sweep", signal.SIGHUP, PREEMPTED),
        ("eval", signal.SIGINT, INTERRUPTED),
    ):
        child = subprocess.Popen(
            [sys.executable, "-m", "ligr_jax", command, *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "LIGR_ALLOCATOR": "auto"},
        )
        while not hears(child.pid, signal.SIGTERM):
            assert child.poll() is None
            time.sleep(0.001)
        child.send_signal(number)
        said = child.communicate()[1]
        assert child.returncode == status, said
        assert said.splitlines()[-1].startswith(f"ligr {command}: stopped by {number.name}")
        assert "Traceback" not in said


def hears(pid: int, number: signal.Signals) -> bool:
    """Whether a process holds a signal back or has a handler for it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigBlk", "SigCgt"))]
    return any(mask >> (number - 1) & 1 for mask in masks)
