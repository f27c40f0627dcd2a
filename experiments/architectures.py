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

Expected (21 November 2026, two AMD cores; NE +- 0.0026, long dwell 0.018, contribution 0.007):

                      rate     dense     FLOPs       NE   long dwell AUC   contribution AUC
    LiGR     demo-1   2^-7     5,324   1.5e+10   0.9829           0.6425             0.5899
             demo-3   2^-7    19,616   7.8e+10   0.9728           0.6668             0.6171
             demo-5   2^-7    49,068   2.2e+11   0.9650           0.6792             0.6366
             demo-7   2^-7   138,636   6.5e+11   0.9523           0.6935             0.6634
    HSTU     demo-1   2^-5     2,732   7.1e+09   0.9939           0.5733             0.5606
             demo-3   2^-5     8,816   3.5e+10   0.9900           0.6085             0.5638
             demo-5   2^-5    21,420   1.0e+11   0.9799           0.6572             0.5964
             demo-7   2^-5    55,692   3.1e+11   0.9819           0.6529             0.5866
    Wukong   demo-1   2^-7    26,514   7.2e+10   0.9705           0.6707             0.6177
             demo-3   2^-7    83,490   2.6e+11   0.9587           0.6830             0.6382
             demo-5   2^-7   184,550   5.7e+11   0.9451           0.7021             0.6651
    Wukong,  demo-1   2^-7    29,914   7.8e+10   0.9699           0.6710             0.6193
    2 paths  demo-3   2^-7    92,762   2.8e+11   0.9581           0.6830             0.6403
             demo-5   2^-7   212,890   6.4e+11   0.9437           0.7036             0.6671
    LiRank   demo-1   2^-10   68,912   2.3e+11   0.9910           0.6271             0.5664
             demo-3   2^-10  151,606   5.3e+11   0.9824           0.6585             0.5882
             demo-5   2^-10  383,544   1.7e+12   0.9736           0.6686             0.6185

    at equal FLOPs       NE less LiGR's               contribution AUC less LiGR's
    HSTU, 3.1e11         +0.0188 [+0.0142, +0.0257]   -0.0539 [-0.0693, -0.0373]
    Wukong, 5.7e11       -0.0086 [-0.0133, -0.0045]   +0.0039 [-0.0051, +0.0120]
    2 paths, 6.4e11      -0.0102 [-0.0139, -0.0048]   +0.0041 [-0.0050, +0.0120]
    LiRank, 6.5e11       +0.0266 [+0.0215, +0.0285]   -0.0664 [-0.0737, -0.0581]

LiGR is better than HSTU and LiRank, as in its paper. Wukong has a lower NE than LiGR, unlike in the
paper (+0.36 % AUC over a baseline for two paths, LiGR +1.2 %). Our Wukong gets precomputed averages
of the member's whole history (`ligr_jax.nn.history`). In this world such averages nearly determine
a member's tastes, and at these small budgets attention has not learned to compute them. Larger
budgets and real logs may reverse the order. HSTU's learning rate transfers worst: its largest rung
is no better than the one before, so its law is uncertain. The other sizes of HSTU, Wukong and
LiRank were not tuned; LiGR's are those of the demo. One world, one pass.

Time: 20 minutes, with other processes on the machine.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from scipy import stats

from ligr_jax.atomic import write_atomically
from ligr_jax.cli import main as ligr
from ligr_jax.scaling.fit import compare
from ligr_jax.scaling.runs import column, read_runs
from ligr_jax.scaling.shipped import RIVALS, grid

LARGER = {"ligr": ["demo-7"], "hstu": ["demo-7"]}
METRICS = ("ne", "long_dwell/auc", "contribution/auc")
FIRST = range(-10, -5)  # log2 of the rates
SEEDS = {"tuning": (0, 1), "measuring": (0, 1, 2)}
SETTINGS = ("eval.splits=validation", "track.wandb=off")


def main() -> None:
    args = arguments()
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
    print("\n## Measured, mean of the seeds\n")
    measured(table, rates)
    print("\n## Difference from LiGR\n")
    compared(table)


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
        at = ", ".join(f"2^{np.log2(rate):.0f} {ne[rate]:.4f}" for rate in sorted(ne))
        if args.no_runs or min(rates) < best < max(rates):
            print(f"{arm}: NE by rate {at}", flush=True)
            return best
        first, last = exponents[0] - (best == min(rates)), exponents[-1] + (best == max(rates))
        exponents = range(first, last + 1)


def train(args: argparse.Namespace, out: Path, sweeps: Mapping[str, Mapping[str, Any]]) -> None:
    """Train sweeps of these axes by architecture; finished runs are skipped."""
    world = args.out / "world"
    if not (world / "prepared" / "manifest.json").exists():
        members = ["--members", str(args.members), "--seed", "0"]
        ligr(["world", "--out", str(world / "log"), *members])
        ligr(["prepare", str(world / "log"), "--out", str(world / "prepared")])
    files = []
    for arm, axes in sweeps.items():
        sweep = {"name": arm, **grid(f"{arm} on one ladder", {"change": RIVALS[arm], **axes})}
        files.append(args.out / "sweeps" / f"{arm}.yaml")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        write_atomically(files[-1], yaml.safe_dump(sweep, sort_keys=False))
    where = ["--data", str(world / "prepared"), "--out", str(out), "--together", "10"]
    if ligr(["sweep", *map(str, files), *SETTINGS, *where]):
        raise SystemExit("some points failed; run again")


def measured(table: pl.DataFrame, rates: Mapping[str, float]) -> None:
    """Print the metrics of every architecture at every rung."""
    rungs = ["config/data.seq_len", "config/model.width"]
    cells = [
        (arm, part)
        for arm in RIVALS
        for part in table.filter(sweep=arm).partition_by(rungs, maintain_order=True)
    ]
    cells.sort(key=lambda cell: (list(RIVALS).index(cell[0]), cell[1]["flops_model"][0]))
    reach = {m: half_width([column(part, f"validation/{m}") for _, part in cells]) for m in METRICS}
    rows = []
    for arm, part in cells:
        means = (column(part, f"validation/{m}").mean() for m in METRICS)
        rows.append(
            (
                arm,
                f"T {part[rungs[0]][0]}, D {part[rungs[1]][0]}",
                f"2^{np.log2(rates[arm]):.0f}",
                f"{part['params/dense'][0]:,}",
                f"{column(part, 'flops_model').mean():.2e}",
                f"{column(part, 'seconds').mean():.0f}",
                *(f"{mean:.4f} ± {reach[m]:.4f}" for mean, m in zip(means, METRICS)),
            )
        )
    show(("", "rung", "rate", "dense", "FLOPs", "s", "NE", "long dwell AUC", "contrib. AUC"), rows)


def half_width(cells: Sequence[np.ndarray]) -> float:
    """Return half the 90 % interval of a cell's mean, from the pooled deviation between seeds."""
    free = sum(len(values) - 1 for values in cells)
    pooled = np.sqrt(sum(((values - values.mean()) ** 2).sum() for values in cells) / free)
    seeds = min(map(len, cells))
    return float(stats.t.ppf(0.95, free) * pooled / np.sqrt(seeds))


def compared(table: pl.DataFrame) -> None:
    """Print the difference of each architecture from LiGR."""
    pairs = [
        f"{t}/{seed}"
        for t, seed in table.select("config/data.seq_len", "config/train.seed").iter_rows()
    ]
    rows = []
    for metric in METRICS:
        found = compare(
            column(table, "flops_model"),
            column(table, f"validation/{metric}"),
            table["sweep"].to_list(),
            pairs=pairs,
            baseline="ligr",
        )
        for c in found:
            what = "rung and seed" if c.kind == "paired" else f"laws, at {c.at:.1e} FLOPs"
            interval = f"{c.difference:+.4f} [{c.low:+.4f}, {c.high:+.4f}]"
            rows.append((metric, c.arm, what, interval, "; ".join(c.warnings)))
    show(("metric", "", "by", "difference, 90 %", ""), rows)


def show(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/architectures"), help="[%(default)s]")
    add("--members", type=int, default=1500, help="of the world [%(default)s]")
    add("--rungs", nargs="+", default=["demo-1", "demo-3", "demo-5"], help="[%(default)s]")
    add("--no-runs", action="store_true", help="report finished runs only")
    return parser.parse_args()


if __name__ == "__main__":
    main()
