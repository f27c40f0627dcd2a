"""How do HSTU, Wukong and LiRank compare with LiGR on a real feed at one size?

    python experiments/architectures_kuairand.py               tune, train, report; resumable
    python experiments/architectures_kuairand.py --no-runs     report only

Data, days, features, tables and optimizer are those of experiments/kuairand.py: the KuaiRand-Pure
slice, trained to 4 May, one pass. optim.dense_lr is each architecture's best of five on 5 May, by
the mean NE of the four actions, one seed; then three seeds with it, read on 6 May. All are 32 wide.
LiGR's shape (one layer) was chosen on 5 May earlier. The shapes of the others were not tuned: two
layers of HSTU and Wukong, LiRank's sizes as in `ligr_jax.scaling.ladder`.

Expected: LiGR is best, by one to three standard deviations between seeds, at a sixth of Wukong's
FLOPs. Numbers: experiments/results/architectures_kuairand.json. Time: 26 minutes, with other
processes on the machine.
"""

import argparse
from pathlib import Path

import polars as pl
from lib.kuairand.data import LIGR, SLICE, positive_rates, prepare_days
from lib.options import make_parser
from lib.results import Cell, Column, Study, mean_cell
from lib.sweeps import run_sweep, write_sweep

from ligr_jax.runs.table import column, read_runs
from ligr_jax.scaling.shipped import RIVALS, Axes, grid

ARMS = {arm: RIVALS[arm] for arm in ("ligr", "hstu", "wukong", "lirank")}
ARMS["hstu"] += ";model.depth=2"
ARMS["wukong"] += ";model.depth=2"
RATES = [0.000375, 0.00075, 0.0015, 0.003, 0.006]
SEEDS = (0, 1, 2)
RATE = "config/optim.dense_lr"
SHOWN = {"click/auc": "click AUC", "click/ne": "click NE", "long_dwell/auc": "long_dwell AUC"}


def main() -> None:
    args = arguments()
    study = Study.of(__file__, __doc__, SEEDS)
    prepared = prepare_days(args.data, args.out / "prepared")
    if not args.no_runs:
        train(args, prepared, {arm: {"optim.dense_lr": RATES} for arm in ARMS})
    rates = {arm: best_rate(args.out / "runs", arm) for arm in ARMS}
    if not args.no_runs:
        seeds = {"train.seed": SEEDS}
        train(args, prepared, {arm: {"optim.dense_lr": [rates[arm]], **seeds} for arm in ARMS})
    add_test(study, args.out / "runs", rates)
    study.record(args.record)


def train(args: argparse.Namespace, prepared: Path, axes: dict[str, Axes]) -> None:
    """Train a sweep of each architecture; finished runs are skipped."""
    # A shape given as assignments would be applied after the change and undo it.
    shape = {"model.depth", "model.set_depth", "optim.dense_lr"}
    fixed = {k: v for k, v in LIGR.items() if k not in shape}
    fixed["model.prior"] = positive_rates(prepared)
    settings = [f"{name}={value}" for name, value in fixed.items()]
    files = []
    for arm, varied in axes.items():
        change = f"model.depth=1;model.set_depth=0;{ARMS[arm]}".removesuffix(";none")
        sweep = {"name": arm, **grid(f"{arm} on KuaiRand", {"change": change, **varied})}
        files.append(write_sweep(args.out / f"{arm}.yaml", sweep))
    run_sweep(files, prepared, args.out / "runs", *settings)


def best_rate(runs: Path, arm: str) -> float:
    """Return the best learning rate on 5 May."""
    table = read_runs(runs).table.filter(pl.col("config/train.seed") == 0)
    table = table.filter(pl.col("sweeps").str.split(", ").list.contains(arm))
    ne = dict(zip(table[RATE], column(table, "validation/ne")))
    shown = ", ".join(f"{rate:g} {ne[rate]:.4f}" for rate in sorted(ne))
    print(f"{arm}: NE on 5 May by rate {shown}")
    result: float = min(ne, key=lambda rate: ne[rate])
    return result


def add_test(study: Study, runs: Path, rates: dict[str, float]) -> None:
    """Add mean and standard deviation over the seeds on 6 May."""
    table = read_runs(runs).table
    rows: list[list[Cell]] = []
    for arm, rate in rates.items():
        part = table.filter(
            pl.col("sweeps").str.split(", ").list.contains(arm) & (pl.col(RATE) == rate)
        )
        cells = [mean_cell(column(part, f"test/{name}").tolist()) for name in SHOWN]
        size = [int(part["params/dense"][0]), float(part["flops_model"][0])]
        rows.append([arm, rate, *size, *cells])
    columns = [
        Column("architecture"),
        Column("rate", "g"),
        Column("dense parameters", ",d"),
        Column("FLOPs", ".1e"),
        *(Column(name, ".4f") for name in SHOWN.values()),
    ]
    study.add("test", "6 May: mean ± standard deviation over the seeds.", columns, rows)


def arguments() -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    add = parser.add_argument
    add("--data", type=Path, default=SLICE, help="the slice of KuaiRand-Pure [%(default)s]")
    add("--out", type=Path, default=Path("runs/architectures_kuairand"), help="[%(default)s]")
    add("--no-runs", action="store_true", help="report finished runs only")
    return parser.parse_args()


if __name__ == "__main__":
    main()
