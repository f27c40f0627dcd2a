"""What does a training run lose if its processes, its peers or its files fail?

    python experiments/faults.py

Trains a small model on a small synthetic world and disturbs it: SIGTERM, `kill -9` (also while it
saves and evaluates), the death of a peer, another number of devices, one flipped byte in each class
of file, and a W&B server that is away. Each disturbed run is started again until it finishes; its
last checkpoint (the digest of every leaf) and its logged losses are compared with those of a run
that nothing disturbed. `--smoke` disturbs once where the whole experiment does so several times.

Expected: equal bits wherever the devices are the same; at most the steps since the last checkpoint
are computed again; every flipped byte is detected and its file named. `docs/pods.md` lists the
tests of the suite for the same demands. Numbers: experiments/results/faults.json. Time: 10 minutes.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lib.options import make_parser
from lib.results import Column, Study
from lib.victims import (
    Victims,
    finish,
    is_evaluating,
    is_saving,
    last_step,
    leaves,
    saved_steps,
    start,
    stop_at,
    wait_until,
)

from ligr_jax.config import Config
from ligr_jax.exit_status import DONE, PREEMPTED
from ligr_jax.runs.files import RunFiles
from ligr_jax.runs.rows import read_rows

EVAL_EVERY = 25
OUTCOME = [Column("disturbance"), Column("times", "d"), Column("result")]
AWAY = {"WANDB_MODE": "online", "WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}


def main() -> None:
    args = arguments()
    shutil.rmtree(args.out, ignore_errors=True)
    data = args.out / "world" / "prepared"
    require("world", "--out", str(data.parent / "log"), "--members", "200", "--seed", "0")
    require("prepare", str(data.parent / "log"), "--out", str(data), "--shard-rows", "5000")
    victims = Victims(data, args.steps, EVAL_EVERY)
    whole = {1: args.out / "whole1", 4: args.out / "whole4"}
    for devices, run in whole.items():
        require_done(finish(victims.start(run, devices)))
    study = Study.of(__file__, __doc__, seeds=[args.seed])
    disturbances: list[Callable[[], list[list[Any]]]] = [
        lambda: [stopped(victims, run, devices, args) for devices, run in whole.items()],
        lambda: [before_first_step(victims, whole[1], args.out / "early")],
        lambda: [killed(victims, whole[1], args)],
        lambda: pair(victims, args),
        lambda: elastic(victims, whole, args),
        lambda: [tracker_away(args)],
    ]
    rows = []
    for disturb in disturbances:
        rows += disturb()
        print(rows[-1], file=sys.stderr, flush=True)
    study.add("disturbed", "A run that is disturbed, against one that is not.", OUTCOME, rows)
    study.add(
        "damaged",
        "One flipped byte: which command detects it, and what happens then.",
        [Column("file"), Column("command"), Column("exit status", "d"), Column("message")],
        damaged(victims, whole[1], args.out / "flipped"),
    )
    study.record(args.record)


def arguments() -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/faults"), help="is removed first [%(default)s]")
    add("--steps", type=int, default=600, help="of each run [%(default)s]")
    add("--kills", type=int, default=25, help="of one run [%(default)s]")
    add("--stops", type=int, default=3, help="of one run [%(default)s]")
    add("--seed", type=int, default=0, help="of the moments of kills [%(default)s]")
    add("--smoke", action="store_true", help="60 steps, each disturbance once")
    args = parser.parse_args()
    if args.smoke:
        args.steps, args.kills, args.stops = 60, 2, 1
    return args


def require(*words: str) -> None:
    require_done(finish(start(words)))


def require_done(result: tuple[int, str]) -> None:
    status, output = result
    if status != DONE:
        raise RuntimeError(f"exit status {status}:\n{output}")


def equality(run: Path, whole: Path) -> str:
    """Compare two finished runs bit by bit: leaves of the last checkpoint, and logged losses."""
    ours, theirs = leaves(run), leaves(whole)
    equal = sum(ours[name] == theirs[name] for name in theirs)
    same_losses = losses(run) == losses(whole)
    return (
        f"{equal} of {len(theirs)} leaves equal, "
        f"{'every' if same_losses else 'NOT every'} loss equal and logged once"
    )


def losses(run: Path) -> list[tuple[int, Any]]:
    rows = read_rows(RunFiles(run).metrics)
    return [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row]


def stopped(victims: Victims, whole: Path, devices: int, args: argparse.Namespace) -> list[Any]:
    """Stop a run by SIGTERM at several steps; it ends with status 85 and loses no step."""
    run = args.out / f"stopped{devices}"
    lost, statuses = [], set()
    for k in range(1, args.stops + 1):
        status, _ = stop_at(victims.start(run, devices), run, k * args.steps // (args.stops + 1))
        statuses.add(status)
        lost.append(last_step(run) - saved_steps(run)[-1])
    require_done(finish(victims.start(run, devices)))
    number = f"{devices} device{'s' if devices > 1 else ''}"
    ends = ", ".join(map(str, statuses))
    words = f"{equality(run, whole)}; exit status {ends}, at most {max(lost)} steps lost"
    return [f"SIGTERM, resumed, {number}", args.stops, words]


def before_first_step(victims: Victims, whole: Path, run: Path) -> list[Any]:
    """Stop a run by SIGTERM as soon as its directory exists."""
    child = victims.start(run)
    wait_until(run.exists, child)
    child.send_signal(signal.SIGTERM)
    began = time.monotonic()
    status, _ = finish(child)
    seconds = time.monotonic() - began
    require_done(finish(victims.start(run)))
    words = f"{equality(run, whole)}; exit status {status} after {seconds:.1f} s"
    return ["SIGTERM before the first step", 1, words]


def has_reached(run: Path, step: int) -> bool:
    return last_step(run) >= step


def killed(victims: Victims, whole: Path, args: argparse.Namespace) -> list[Any]:
    """Kill a run at random steps, and in two of five lives while it saves or evaluates."""
    run, rng = args.out / "killed", random.Random(args.seed)
    moments: dict[str, Callable[[], bool]] = {
        "saving": lambda: is_saving(run),
        "evaluating": lambda: is_evaluating(run, EVAL_EVERY),
    }
    counts = dict.fromkeys(moments, 0)
    lost, kills = [], 0
    for k in range(args.kills):
        child, begin = victims.start(run), last_step(run)
        due = begin + rng.randint(1, max(1, (args.steps - begin) // (args.kills - k)))
        wait_until(partial(has_reached, run, due), child)
        wanted = [*moments.values()][k % 5 : k % 5 + 1]
        if wanted:
            wait_until(wanted[0], child)
        if child.poll() is not None:
            break
        child.kill()
        finish(child)
        kills += 1
        for name, holds in moments.items():
            counts[name] += holds()
        lost.append(last_step(run) - (saved_steps(run) or [0])[-1])
    require_done(finish(victims.start(run)))
    during = " and ".join(f"{n} while {name}" for name, n in counts.items())
    words = f"{equality(run, whole)}; {during}; {min(lost)} to {max(lost)} steps computed again"
    return ["kill -9, resumed, 1 device", kills, words]


def pair(victims: Victims, args: argparse.Namespace) -> list[list[Any]]:
    """Two processes: one is asked to stop, and in another run one is killed."""
    whole, run, lost = (args.out / name for name in ("pair", "pair-stopped", "pair-killed"))
    for child in victims.start_pair(whole):
        require_done(finish(child))

    both = victims.start_pair(run)
    wait_until(lambda: last_step(run) >= args.steps // 2, both[0])
    both[1].send_signal(signal.SIGTERM)
    statuses = [finish(child)[0] for child in both]
    for child in victims.start_pair(run):
        require_done(finish(child))
    asked = [
        "SIGTERM to one of two processes",
        1,
        f"{equality(run, whole)}; exit statuses {statuses[0]} and {statuses[1]}",
    ]

    both = victims.start_pair(lost)
    wait_until(lambda: last_step(lost) >= args.steps // 2, both[0])
    both[1].kill()
    began = time.monotonic()
    status, _ = finish(both[0])
    seconds = time.monotonic() - began
    finish(both[1])
    for child in victims.start_pair(lost):
        require_done(finish(child))
    words = f"{equality(lost, whole)}; the other ends after {seconds:.1f} s with status {status}"
    return [asked, ["kill -9 of one of two processes", 1, words]]


def elastic(victims: Victims, whole: dict[int, Path], args: argparse.Namespace) -> list[list[Any]]:
    """Continue on another number of devices."""
    rows = []
    for first, then in ((1, 4), (4, 1)):
        run = args.out / f"from{first}to{then}"
        status, _ = stop_at(victims.start(run, first), run, args.steps // 2)
        if status != PREEMPTED:
            raise RuntimeError(f"{run}: exit status {status}")
        resumed = last_step(run)
        require_done(finish(victims.start(run, then)))
        ours, theirs = (np.array(losses(path))[resumed:, 1] for path in (run, whole[first]))
        apart = np.abs(ours / theirs - 1)
        words = (
            f"losses differ by at most {apart[:10].max():.1e} (relative) in ten steps, and "
            f"{apart.max():.1e} in all {len(apart)}"
        )
        rows.append([f"from {first} to {then} devices", 1, words])
    return rows


def tracker_away(args: argparse.Namespace) -> list[Any]:
    """Measure what logging a row costs training, without W&B and with a server that is away."""
    from ligr_jax.runs.tracker import Tracker

    number = 20 if args.smoke else 2000
    row = {f"train/metric{k}": 0.125 * k for k in range(30)}
    costs = {}
    for mode, env in (("off", {"WANDB_MODE": "disabled"}), ("away", AWAY)):
        os.environ |= env
        run = args.out / f"tracker-{mode}"
        run.mkdir()
        tracker = Tracker(run, Config(), 0)
        began = time.perf_counter()
        for step in range(1, number + 1):
            tracker.log({"step": step, **row})
        costs[mode] = (time.perf_counter() - began) / number * 1e6
        tracker.close()
    kept = len(read_rows(RunFiles(args.out / "tracker-away").metrics))
    words = (
        f"{kept} of {number} rows in metrics.jsonl; a row costs {costs['away']:.0f} µs, "
        f"{costs['off']:.0f} µs without W&B"
    )
    return ["W&B server away", 1, words]


def damaged(victims: Victims, whole: Path, out: Path) -> list[list[Any]]:
    """Flip the middle byte of one file of each class, and use it."""
    out.mkdir()
    export = ["export", str(whole), "--out", str(out / "export")]
    require(*export)
    train = ["train", "--data", str(out / "data"), "--out", str(out / "run"), *victims.settings]
    evaluate = ["eval", str(out / "run"), "--data", str(out / "data")]
    verify = ["verify", str(out / "export")]
    last = f"run/checkpoints/{saved_steps(whole)[-1]}"
    shard = min((victims.data).glob("members-*.arrow")).name
    cases = [
        ("data", f"data/{shard}", train),
        ("data, items", "data/items.arrow", train),
        ("data, manifest", "data/manifest.json", train),
        ("configuration", "run/config.json", train),
        ("metrics", "run/metrics.jsonl", train),
        ("checkpoint, arrays", f"{last}/state", train),
        ("checkpoint, description", f"{last}/meta/metadata", train),
        ("checkpoint, read only", f"{last}/meta/metadata", evaluate),
        ("summary", "run/summary.json", train),
        ("export", "export", verify),
    ]
    rows = []
    for name, file, words in cases:
        for part, source in (("data", victims.data), ("run", whole)):
            shutil.rmtree(out / part, ignore_errors=True)
            shutil.copytree(source, out / part)
        if words is train and name != "summary":  # of an unfinished run
            RunFiles(out / "run").summary.unlink()
        target = largest(out / file)
        flip(target)
        status, output = finish(start(words))
        message = message_about(target.name, output.replace(f"{out}/", ""))
        rows.append([name, f"ligr {words[0]}", status, message.replace("|", "/")])
        if target.exists():
            flip(target)
    return rows


def message_about(file: str, output: str) -> str:
    """Return the beginning of the line that reports the damage of a file."""
    for word in (file, "DAMAGED", "damaged"):
        for line in output.splitlines():
            text = line.partition(": ")[2] if line.startswith("ligr ") else line
            if word in text and not text.startswith("ok ") and "is updated" not in text:
                return text if len(text) < 130 else f"{text[:127]}..."
    return "NOT detected"


def largest(path: Path) -> Path:
    """Return a file, or the largest file of a directory."""
    if path.is_file():
        return path
    return max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


if __name__ == "__main__":
    main()
