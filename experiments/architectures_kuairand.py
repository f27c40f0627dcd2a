"""How do HSTU, Wukong and LiRank compare with LiGR on a real feed at one size?

    python experiments/architectures_kuairand.py               tune, train, report; resumable
    python experiments/architectures_kuairand.py --no-runs     report only

The data, days, features, tables and optimizer of experiments/kuairand.py: the KuaiRand-Pure slice,
trained to 4 May, one pass. optim.dense_lr is each architecture's best of five on 5 May, by the
mean NE of the four actions, one seed; then three seeds with it, read on 6 May. All are 32 wide.
LiGR's shape (one layer) was chosen on 5 May earlier. The shapes of the others were not tuned: two
layers of HSTU and Wukong, LiRank's sizes as in `ligr_jax.scaling.ladder`.

Expected (21 November 2026, two AMD cores shared with other work; mean and deviation of three
seeds):

              rate    dense     FLOPs   click AUC         click NE          long_dwell AUC
    LiGR     0.003   35,428   2.2e+11   0.7507 ± 0.0008   0.8516 ± 0.0012   0.7526 ± 0.0003
    HSTU    0.0015   31,620   2.1e+11   0.7485 ± 0.0008   0.8547 ± 0.0014   0.7513 ± 0.0006
    Wukong   0.003  189,556   1.3e+12   0.7488 ± 0.0008   0.8532 ± 0.0006   0.7520 ± 0.0003
    LiRank 0.00075  384,414   4.4e+12   0.7436 ± 0.0005   0.8594 ± 0.0001   0.7444 ± 0.0004

LiGR is best, by one to three standard deviations between seeds, at a sixth of Wukong's FLOPs. Every
best rate is inside its grid.

Time: 26 minutes, with other processes on the machine.
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl
import yaml
from kuairand import ACTIONS, LIGR, SLICE, prepare_days

from ligr_jax.atomic import write_atomically
from ligr_jax.cli import main as ligr
from ligr_jax.data.manifest import load_manifest
from ligr_jax.scaling.runs import column, read_runs
from ligr_jax.scaling.shipped import RIVALS, Axes, grid

ARMS = {arm: RIVALS[arm] for arm in ("ligr", "hstu", "wukong", "lirank")}
ARMS["hstu"] += ";model.depth=2"
ARMS["wukong"] += ";model.depth=2"
RATES = [0.000375, 0.00075, 0.0015, 0.003, 0.006]
SEEDS = (0, 1, 2)
RATE = "config/optim.dense_lr"
SHOWN = ("click/auc", "click/ne", "long_dwell/auc", "long_dwell/ne", "contribution/auc")


def main() -> None:
    args = arguments()
    prepared = prepare_days(args.data, args.out / "prepared")
    if not args.no_runs:
        train(args, prepared, {arm: {"optim.dense_lr": RATES} for arm in ARMS})
    rates = {arm: best_rate(args.out / "runs", arm) for arm in ARMS}
    if not args.no_runs:
        seeds = {"train.seed": SEEDS}
        train(args, prepared, {arm: {"optim.dense_lr": [rates[arm]], **seeds} for arm in ARMS})
    report(args.out / "runs", rates)


def train(args: argparse.Namespace, prepared: Path, axes: dict[str, Axes]) -> None:
    """Train a sweep of each architecture; finished runs are skipped."""
    positive = load_manifest(prepared).splits["train"].positive_rate
    prior = ",".join(f"{positive[a]:.6f}" for a in ACTIONS)
    # A shape given as assignments would be applied after the change and undo it.
    shape = {"model.depth", "model.set_depth", "optim.dense_lr"}
    fixed = {k: v for k, v in LIGR.items() if k not in shape} | {"model.prior": prior}
    settings = [f"{name}={value}" for name, value in fixed.items()]
    files = []
    for arm, varied in axes.items():
        change = f"model.depth=1;model.set_depth=0;{ARMS[arm]}".removesuffix(";none")
        files.append(args.out / f"{arm}.yaml")
        sweep = {"name": arm, **grid(f"{arm} on KuaiRand", {"change": change, **varied})}
        write_atomically(files[-1], yaml.safe_dump(sweep, sort_keys=False))
    where = ["--data", str(prepared), "--out", str(args.out / "runs"), "--together", "3"]
    if ligr(["sweep", *map(str, files), *settings, *where]):
        raise SystemExit("some points failed; run again")


def best_rate(runs: Path, arm: str) -> float:
    """Return the best learning rate on 5 May."""
    table = read_runs(runs).table.filter(pl.col("config/train.seed") == 0)
    table = table.filter(pl.col("sweeps").str.split(", ").list.contains(arm))
    ne = dict(zip(table[RATE], column(table, "validation/ne")))
    shown = ", ".join(f"{rate:g} {ne[rate]:.4f}" for rate in sorted(ne))
    print(f"{arm}: NE on 5 May by rate {shown}")
    return min(ne, key=lambda rate: ne[rate])


def report(runs: Path, rates: dict[str, float]) -> None:
    """Print mean and standard deviation over the seeds on 6 May."""
    table = read_runs(runs).table
    print("\n| | rate | dense | FLOPs | " + " | ".join(SHOWN) + " |")
    print("|---" * (4 + len(SHOWN)) + "|")
    for arm, rate in rates.items():
        part = table.filter(
            pl.col("sweeps").str.split(", ").list.contains(arm) & (pl.col(RATE) == rate)
        )
        values = (column(part, f"test/{name}") for name in SHOWN)
        cells = " | ".join(f"{np.mean(v):.4f} ± {np.std(v, ddof=1):.4f}" for v in values)
        size = f"{part['params/dense'][0]:,} | {part['flops_model'][0]:.2e}"
        print(f"| {arm} | {rate:g} | {size} | {cells} |")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, default=SLICE, help="the slice of KuaiRand-Pure [%(default)s]")
    add("--out", type=Path, default=Path("runs/architectures_kuairand"), help="[%(default)s]")
    add("--no-runs", action="store_true", help="report finished runs only")
    return parser.parse_args()


if __name__ == "__main__":
    main()
