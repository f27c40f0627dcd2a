"""Is it faster to train K runs that differ in seed or learning rate together than one by one?

    python experiments/together.py

Trains presets of the demo's ladder, 150 steps each, on a small synthetic world, alone and in groups
of K: groups of seeds, in which every run has its own batches, and groups of learning rates, which
share batches. A sample is one full command; the commands take turns within a round; numbers are
medians over the rounds. The table has the cost of a group divided by K times the cost of one run:

    command     wall time of the whole command: start, compilation, training, evaluation
    cores       seconds that cores worked in it, which idle cores do not add to
    training    wall time of the steps, as the runs' summaries have it (`seconds`)

Expected (21 November 2026, two AMD cores, other processes at the lowest priority):

                  demo-1: alone 14.5, 16.4, 1.3 s      demo-5: alone 18.3, 21.5, 2.2 s
                  command   cores   training           command   cores   training
    2 seeds          0.49    0.52       0.58              0.54    0.58       0.71
    4 seeds          0.28    0.29       0.47              0.32    0.34       0.50
    2 rates          0.47    0.49       0.44              0.55    0.59       0.68
    4 rates          0.27    0.28       0.29              0.36    0.34       0.48

Four runs as one command take about the time of one: starting and compiling are most of what runs of
this size cost, and small steps leave cores idle that a group's larger ones use.

Time: 7 minutes.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from peers.workers import Neighbours, alternate, quartiles

KINDS: dict[str, Callable[[int], str]] = {
    "seeds": lambda k: f"train.seed={k}",
    "rates": lambda k: f"optim.dense_lr={3e-3 * 1.2**k:.6g}",
}


def main() -> None:
    args, neighbours = arguments(), Neighbours()
    data = args.out / "world" / "prepared"
    if not data.is_dir():
        ligr("world", "--out", str(data.parent / "log"), "--members", "3000", "--seed", "0")
        ligr("prepare", str(data.parent / "log"), "--out", str(data))
    report = {}
    for preset in args.presets:
        trials = {
            f"{kind} {k}": Trial(data, args, preset, kind, k)
            for kind, k in [("alone", 1), *((kind, k) for kind in KINDS for k in args.sizes)]
        }
        alternate({name: trial.sample for name, trial in trials.items()}, args.rounds)
        report[preset] = {name: trial.seconds for name, trial in trials.items()}
        print(table(preset, trials), flush=True)
        path = args.out / "together.json"
        path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\nother processes took {neighbours.share():.0%} of the cores meanwhile\n{path}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/together"), help="where all goes [%(default)s]")
    add("--presets", nargs="+", default=["demo-1", "demo-5"], metavar="NAME")
    add("--sizes", nargs="+", type=int, default=[2, 4], metavar="K")
    add("--rounds", type=int, default=2, help="[%(default)s]")
    add("--steps", type=int, default=150, help="of each run [%(default)s]")
    return parser.parse_args()


class Trial:
    """K runs as one command, from scratch.

    kind: `alone`, or what the runs of a group differ in. seconds: of every sample, by measure.
    """

    def __init__(
        self, data: Path, args: argparse.Namespace, preset: str, kind: str, k: int
    ) -> None:
        self.k, self.out = k, args.out / "runs"
        self.seconds: dict[str, list[float]] = {"command": [], "cores": [], "training": []}
        self.runs = [self.out / str(i) for i in range(k)]
        self.command = ["train", "--data", str(data), "--preset", preset]
        self.command += [f"train.steps={args.steps}", "track.wandb=off"]
        if kind == "alone":
            self.command += ["--out", str(self.runs[0])]
            return
        entries = [
            {"out": str(run), "assignments": [KINDS[kind](i)]} for i, run in enumerate(self.runs)
        ]
        listing = args.out / f"{kind}-{k}.json"
        listing.write_text(json.dumps(entries, indent=1) + "\n")
        self.command += ["--together", str(listing)]

    def sample(self) -> float:
        shutil.rmtree(self.out, ignore_errors=True)
        began, worked = time.perf_counter(), worked_seconds()
        ligr(*self.command)
        self.seconds["command"].append(time.perf_counter() - began)
        self.seconds["cores"].append(worked_seconds() - worked)
        summaries = [json.loads((run / "summary.json").read_text()) for run in self.runs]
        self.seconds["training"].append(sum(summary["seconds"] for summary in summaries))
        return self.seconds["command"][-1]


def table(preset: str, trials: dict[str, Trial]) -> str:
    alone = {name: quartiles(times)[1] for name, times in trials["alone 1"].seconds.items()}
    shown = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in alone.items())
    lines = ["", f"{preset}, alone: {shown}", f"| | {' | '.join(alone)} |", "|---|---|---|---|"]
    for name, trial in trials.items():
        ratios = [quartiles(trial.seconds[m])[1] / (trial.k * alone[m]) for m in alone]
        lines.append(f"| {name} | {' | '.join(f'{r:.2f}' for r in ratios)} |")
    return "\n".join(lines)


def worked_seconds() -> float:
    """Return the CPU seconds of all commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def ligr(*words: str) -> None:
    command = [sys.executable, "-m", "ligr_jax", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
