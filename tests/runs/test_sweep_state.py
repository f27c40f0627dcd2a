"""`ligr status`: every state of a point, the time left and the cost, from files of any host."""

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from ligr_jax.cli import main
from ligr_jax.commands.status_table import format_state
from ligr_jax.data.schema import BadInput
from ligr_jax.digests import write_json
from ligr_jax.exit_status import DONE, FAILED, PREEMPTED
from ligr_jax.lock import exclusive
from ligr_jax.runs.directory import add_failure, save_summary, write_error
from ligr_jax.runs.rows import line_of
from ligr_jax.runs.state import FRESH_S
from ligr_jax.runs.sweep_state import read_sweep_state

ELSEWHERE = "host elsewhere, process 7\n"
DEAD = 2**22 + 1  # above the largest number of a process


def row(step: int, **values: float) -> dict[str, Any]:
    """Return a row of a run with two devices whose step takes 2 s."""
    metrics = {"throughput/mfu": 0.25, "throughput/input_wait": 0.03, "compute/seconds": 2.0 * step}
    metrics |= {"compute/device_seconds": 4.0 * step, "compute/flops_model": 1e9 * step}
    return {"step": step, "train/loss": 0.5, **metrics, **values}


def write_run(directory: Path, rows: list[dict[str, Any]], owner: str, age_s: float = 0) -> None:
    directory.mkdir()
    (directory / ".lock").write_text(owner)
    (directory / "metrics.jsonl").write_text("".join(map(line_of, rows)) + '{"step": 99')
    for path in directory.iterdir():
        os.utime(path, (time.time() - age_s,) * 2)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A sweep with two points of each state, or one; all points have 100 steps, estimated 50 s."""
    out = tmp_path / "sweep"
    out.mkdir()
    names = ("done", "near", "group0", "group1", "far", "silent", "killed", "broken", "idle")
    points = [
        {
            "run": name,
            "sweeps": ["ladder"],
            "assignments": [f"preset={name}", "model.depth=2"],
            "estimate": {"steps": 100, "seconds": 50.0},
        }
        for name in names
    ]
    write_json(out / "sweep.json", {"points": points})
    (out / "done").mkdir()
    final = {"start_seconds": 20.0, "seconds": 200.0, "eval_seconds": 30.0, "devices": 2}
    save_summary(out / "done", {"steps": 100, "validation/ne": 0.81, "flops_model": 1e11, **final})
    here = f"host {socket.gethostname()}, process {{}}\n"
    rows = [row(10), {"step": 20, "validation/ne": 0.9}, row(20)]
    write_run(out / "near", rows, here.format(os.getpid()))
    for k in range(2):  # they train together, in one process
        write_run(out / f"group{k}", [row(50)], ELSEWHERE)
    write_run(out / "far", [row(99)], "host afar, process 7\n")
    write_run(out / "silent", [row(50)], ELSEWHERE, age_s=FRESH_S + 60)
    write_run(out / "killed", [row(25)], here.format(DEAD))
    write_run(out / "broken", [row(1)], here.format(DEAD))
    write_error(out / "broken", "Traceback\nTrainingDiverged: step 2")
    for _ in range(2):
        add_failure(out / "broken", "TrainingDiverged: step 2")
    return out


def test_every_state_is_read_from_files(sweep: Path) -> None:
    with exclusive(sweep / "near", "trains", keep=True):
        state = read_sweep_state(sweep)
    points = {p.run.run: p for p in state.points}
    running = ("near", "group0", "group1", "far")
    expected = {"done": "finished", "silent": "stopped", "killed": "stopped", "idle": "waiting"}
    expected |= {"broken": "failed", **dict.fromkeys(running, "running")}
    assert {name: p.run.state for name, p in points.items()} == expected
    assert state.counts == {"waiting": 1, "running": 4, "stopped": 2, "failed": 1, "finished": 1}
    near = points["near"].run
    assert (near.host, near.process) == (socket.gethostname(), os.getpid())
    assert points["far"].run.host == "afar"
    assert (near.step, near.steps, near.mfu, near.input_wait) == (20, 100, 0.25, 0.03)
    assert (near.quality, points["done"].run.quality) == (0.9, 0.81)
    assert points["broken"].run.words == "TrainingDiverged: step 2"
    assert not state.is_over

    # Seconds left: 80 steps of 2 s; two runs with 50 steps each, in one process; one step.
    etas = [points[name].eta_s for name in running]
    assert etas == pytest.approx([160, 200, 200, 2], abs=1)
    # Estimates of 50 s took 250 s; stopped runs continue at their own speed.
    waiting, stopped = 250, 100 + 150
    assert state.runners == 3
    total = waiting + stopped + 160 + 100 + 100 + 2
    assert state.eta_s == pytest.approx(max(200, total / 3), abs=2)
    steps = 20 + 50 + 50 + 99 + 50 + 25 + 1
    assert state.device_hours == pytest.approx((2 * 250 + 4 * steps) / 3600)
    assert state.flops == pytest.approx(1e11 + 1e9 * steps)
    # The lock is free now, although its owner lives.
    assert {p.run.run: p.run.state for p in read_sweep_state(sweep).points}["near"] == "stopped"


def test_the_command_prints_a_table_and_returns_what_is_left(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", str(sweep)]) == FAILED
    lines = capsys.readouterr().out.splitlines()
    far = next(line for line in lines if line.startswith("far"))
    assert far.split() == [
        "far",
        "running",
        "99/100",
        "25.0%",
        "3.0%",
        "0:02",
        "afar",
        "preset=far",
    ]
    broken = next(line for line in lines if line.startswith("broken"))
    assert "  2         TrainingDiverged: step 2" in broken
    assert "model.depth=2" not in "".join(lines)  # all points have it
    assert "9 points: 1 waiting, 3 running, 3 stopped, 1 failed, 1 finished" in lines[-2]
    assert lines[-1].endswith("left with 2 processes")

    assert main(["status", str(sweep), "--json"]) == FAILED
    printed = json.loads(capsys.readouterr().out)
    assert printed["points"][0]["run"] == "done"
    assert printed["counts"]["running"] == 3
    assert {p["run"]: p["failures"] for p in printed["points"] if p["failures"]} == {"broken": 2}

    assert main(["status", str(sweep / "killed")]) == PREEMPTED  # one run
    assert main(["status", str(sweep / "done"), "--watch"]) == DONE
    capsys.readouterr()
    assert main(["status", str(sweep / "nowhere")]) == FAILED
    assert "no such directory" in capsys.readouterr().err
    (sweep / "empty").mkdir()
    with pytest.raises(BadInput, match="neither runs nor"):
        read_sweep_state(sweep / "empty")


def test_a_table_fits_its_terminal(sweep: Path) -> None:
    """Points that run or failed remain, and only their states have colors."""
    state = read_sweep_state(sweep)
    plain = format_state(state, width=40, height=8)
    lines = plain.splitlines()
    assert len(lines) == 8
    assert max(map(len, lines)) == 40
    kept = [line.split()[0] for line in lines[1:5]]
    assert kept == ["group0", "group1", "far", "broken"]
    assert lines[5] == "... 5 other points"
    colored = format_state(state, width=40, height=8, color=True)
    assert "\x1b[31mfailed\x1b[0m" in colored
    assert colored.replace("\x1b[31m", "").replace("\x1b[34m", "").replace("\x1b[0m", "") == plain


def test_watching_ends_when_nothing_is_left(
    sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log shows the state again only when it has changed."""
    waits = []

    def finish_all(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            for point in read_sweep_state(sweep).points:
                (sweep / point.run.run).mkdir(exist_ok=True)
                save_summary(sweep / point.run.run, {"steps": 100, "validation/ne": 0.8})

    monkeypatch.setattr(time, "sleep", finish_all)
    monkeypatch.setattr(time, "time", lambda: 2e9)  # nothing on other hosts is fresh
    assert main(["status", str(sweep), "--watch", "--every", "7"]) == DONE
    assert waits == [7.0, 7.0]
    shown = capsys.readouterr().out
    assert shown.count("9 points") == 2
    assert "9 points: 9 finished" in shown
