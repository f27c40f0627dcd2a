"""Which architecture has the best quality at equal compute: LiGR, HSTU, Wukong or LiRank?

    python experiments/architectures.py             tune, train, report; finished runs are kept
    python experiments/architectures.py --no-runs   report only

A synthetic world of 1,500 members, one pass, with the same rows, features, tables, heads and losses
for all (as LiGR 5.1 and A.2 do on LinkedIn's feed). Three rungs of the demo's ladder, three seeds.
optim.dense_lr is tuned per architecture at the middle rung with two seeds, on a grid of powers of
two that is extended until the best has neighbours. The rates of LiGR and HSTU then follow the rules
for width and depth (`ligr_jax.nn.mup`); Wukong and LiRank have no such rules and keep the rate of
the middle rung. Their other sizes follow the width of the rung. A rung costs them several times
LiGR's FLOPs, so LiGR and HSTU have one more, larger rung, and the laws are compared at equal FLOPs.

The report has validation NE and AUC with FLOPs (flops_model) and 90 % intervals from the standard
deviation between seeds, pooled over all cells; then the difference of each architecture from LiGR,
paired by rung and seed, and by the two laws of NE at equal FLOPs.

Expected: LiGR is better than HSTU and LiRank at equal FLOPs; Wukong, which gets averages of the
member's whole history, is slightly better than LiGR in this world. Numbers:
experiments/results/architectures.json. Time: 20 minutes, with other processes on the machine.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from lib.options import make_parser
from lib.results import Cell, Column, Study, interval
from lib.sweeps import prepared_world, run_sweep, write_sweep
from scipy import stats

from ligr_jax.runs.table import column, read_runs
from ligr_jax.scaling.fit import compare
from ligr_jax.scaling.shipped import RIVALS, grid

LARGER = {"ligr": ["demo-7"], "hstu": ["demo-7"]}
METRICS = {"ne": "NE", "long_dwell/auc": "long dwell AUC", "contribution/auc": "contribution AUC"}
FIRST = range(-10, -5)  # log2 of the rates
SEEDS = {"tuning": (0, 1), "measuring": (0, 1, 2)}
SETTINGS = ("eval.splits=validation", "track.wandb=off")


def main() -> None:
    args = arguments()
    study = Study.of(__file__, __doc__, SEEDS["measuring"])
    rates = {arm: tuned(args, arm) for arm in RIVALS}
    out = args.out / "measured"
    if not args.no_runs:
        sweeps = {
            arm: {
                "preset": [*args.rungs, *LARGER.get(arm, [])],
                "train.seed": SEEDS["measuring"],
                "optim.dense_lr": rate,
            }
            for arm, rate in rates.items()
        }
        train(args, out, sweeps)
    table = read_runs(out).table
    add_measured(study, table, rates)
    add_compared(study, table)
    study.record(args.record)


def tuned(args: argparse.Namespace, arm: str) -> float:
    """Return the best learning rate at the middle rung, with worse rates on both sides."""
    out, rung = args.out / "tuning" / arm, args.rungs[len(args.rungs) // 2]
    exponents = FIRST
    while True:
        rates = [2.0**k for k in exponents]
        if not args.no_runs:
            axes = {"preset": rung, "train.seed": SEEDS["tuning"], "optim.dense_lr": rates}
            train(args, out, {arm: axes})
        mean = (
            read_runs(out)
            .table.group_by("config/optim.dense_lr")
            .agg(pl.col("validation/ne").mean())
        )
        ne = dict(mean.iter_rows())
        best = min(ne, key=lambda rate: ne[rate])
        curve = ", ".join(f"2^{np.log2(rate):.0f} {ne[rate]:.4f}" for rate in sorted(ne))
        if args.no_runs or min(rates) < best < max(rates):
            print(f"{arm}: NE by rate {curve}", flush=True)
            result: float = best
            return result
        first, last = exponents[0] - (best == min(rates)), exponents[-1] + (best == max(rates))
        exponents = range(first, last + 1)


def train(args: argparse.Namespace, out: Path, sweeps: Mapping[str, Mapping[str, Any]]) -> None:
    """Train sweeps of these axes by architecture; finished runs are skipped."""
    data = prepared_world(args.out / "world", args.members)
    files = []
    for arm, axes in sweeps.items():
        sweep = {"name": arm, **grid(f"{arm} on one ladder", {"change": RIVALS[arm], **axes})}
        files.append(write_sweep(args.out / "sweeps" / f"{arm}.yaml", sweep))
    run_sweep(files, data, out, *SETTINGS, together=10)


def add_measured(study: Study, table: pl.DataFrame, rates: Mapping[str, float]) -> None:
    """Add the metrics of every architecture at every rung."""
    rungs = ["config/data.seq_len", "config/model.width"]
    groups = [
        (arm, part)
        for arm in RIVALS
        for part in table.filter(sweep=arm).partition_by(rungs, maintain_order=True)
    ]
    groups.sort(key=lambda group: (list(RIVALS).index(group[0]), group[1]["flops_model"][0]))
    reach = {
        m: half_width([column(part, f"validation/{m}") for _, part in groups]) for m in METRICS
    }
    rows: list[list[Cell]] = []
    for arm, part in groups:
        means = (float(column(part, f"validation/{m}").mean()) for m in METRICS)
        rows.append(
            [
                arm,
                f"T {part[rungs[0]][0]}, D {part[rungs[1]][0]}",
                f"2^{np.log2(rates[arm]):.0f}",
                int(part["params/dense"][0]),
                float(column(part, "flops_model").mean()),
                *means,
            ]
        )
    columns = [
        Column("architecture"),
        Column("rung"),
        Column("rate"),
        Column("dense parameters", ",d"),
        Column("FLOPs", ".1e"),
        *(Column(name, ".4f") for name in METRICS.values()),
    ]
    intervals = ", ".join(f"{METRICS[m]} ± {reach[m]:.4f}" for m in METRICS)
    caption = f"Validation split, means of the seeds; 90 % intervals are {intervals}."
    study.add("measured", caption, columns, rows)


def half_width(cells: Sequence[np.ndarray]) -> float:
    """Return half the 90 % interval of a cell's mean, from the pooled deviation between seeds."""
    free = sum(len(values) - 1 for values in cells)
    pooled = np.sqrt(sum(((values - values.mean()) ** 2).sum() for values in cells) / free)
    seeds = min(map(len, cells))
    return float(stats.t.ppf(0.95, free) * pooled / np.sqrt(seeds))


def add_compared(study: Study, table: pl.DataFrame) -> None:
    """Add the difference of each architecture from LiGR, by rung and seed and by the laws."""
    pairs = [
        f"{t}/{seed}"
        for t, seed in table.select("config/data.seq_len", "config/train.seed").iter_rows()
    ]
    rows: dict[str, list[list[Cell]]] = {"paired": [], "laws": []}
    for metric, name in METRICS.items():
        comparisons = compare(
            column(table, "flops_model"),
            column(table, f"validation/{metric}"),
            table["sweep"].to_list(),
            pairs=pairs,
            baseline="ligr",
        )
        for c in comparisons:
            kind = "paired" if c.kind == "paired" else "laws"
            flops = [] if kind == "paired" else [c.at]
            difference = interval(c.difference, c.low, c.high)
            rows[kind].append([c.arm, *flops, name, difference, "; ".join(c.warnings)])
    arm, *rest = (
        Column("architecture"),
        Column("metric"),
        Column("less LiGR's, 90 %", "+.4f"),
        Column("warnings"),
    )
    caption = "Difference from LiGR"
    study.add("paired", f"{caption}, paired by rung and seed.", [arm, *rest], rows["paired"])
    columns = [arm, Column("FLOPs", ".1e"), *rest]
    study.add("laws", f"{caption} at equal FLOPs, by the laws.", columns, rows["laws"])


def arguments() -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/architectures"), help="[%(default)s]")
    add("--members", type=int, default=1500, help="of the world [%(default)s]")
    add("--rungs", nargs="+", default=["demo-1", "demo-3", "demo-5"], help="[%(default)s]")
    add("--no-runs", action="store_true", help="report finished runs only")
    return parser.parse_args()


if __name__ == "__main__":
    main()
