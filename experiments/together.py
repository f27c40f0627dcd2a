"""Is it faster to train K runs that differ in seed or learning rate together than one by one?

    python experiments/together.py

Trains presets of the demo's ladder, 150 steps each, on a small synthetic world, alone and in groups
of K: groups of seeds, in which every run has its own batches, and groups of learning rates, which
share batches. A sample is one full command; the commands take turns within a round; numbers are
medians over the rounds. The table has the cost of a group divided by K times the cost of one run:

    command     wall time of the whole command: start, compilation, training, evaluation
    cores       seconds that cores worked in it, which idle cores do not add to
    training    wall time of the steps, as the runs' summaries have it (`seconds`)

Expected: four runs as one command take about the time of one, because starting and compiling are
most of the cost of runs this small. Numbers: experiments/results/together.json. Time: 7 minutes.
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

from lib.options import make_parser
from lib.results import Cell, Column, Study
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
    study = Study.of(__file__, __doc__)
    report = {}
    for preset in args.presets:
        trials = {
            f"{kind} {k}": Trial(data, args, preset, kind, k)
            for kind, k in [("alone", 1), *((kind, k) for kind in KINDS for k in args.sizes)]
        }
        alternate({name: trial.sample for name, trial in trials.items()}, args.rounds)
        report[preset] = {name: trial.seconds for name, trial in trials.items()}
        add_costs(study, preset, trials)
        path = args.out / "together.json"
        path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\nother processes took {neighbours.share():.0%} of the cores meanwhile\n{path}")
    study.record(args.record)


def arguments() -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
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


def add_costs(study: Study, preset: str, trials: dict[str, Trial]) -> None:
    """Add the seconds of one run, and the cost of each group over that of its runs alone."""
    alone = {name: quartiles(times)[1] for name, times in trials["alone 1"].seconds.items()}
    rows: list[list[Cell]] = [["one run alone, seconds", *alone.values()]]
    for name, trial in trials.items():
        if name != "alone 1":
            ratios = (quartiles(trial.seconds[m])[1] / (trial.k * alone[m]) for m in alone)
            rows.append([name, *ratios])
    columns = [Column("runs"), *(Column(name, ".2f") for name in alone)]
    caption = f"{preset}: one run alone, and groups of K runs over K times the cost of one."
    study.add(preset, caption, columns, rows)


def worked_seconds() -> float:
    """Return the CPU seconds of all commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def ligr(*words: str) -> None:
    command = [sys.executable, "-m", "ligr_jax", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
