"""How much do actions of the own session help, and do they change the order of rankers?

    python experiments/session_leak.py                    both data sets, everything, resumable
    python experiments/session_leak.py --data world --arms ligr hstu

Every architecture is trained twice on the same rows: with the session mask, which shows what is
known when a session is served, and with the plain causal mask of most public code, which also shows
the actions of earlier impressions of the same session. Three numbers of each action's AUC:

    reported   trained and evaluated with the causal mask: what a paper would report
    served     the same weights, evaluated with the session mask: what serving would get
    faithful   trained and evaluated with the session mask

The leak is reported less faithful; what it costs in production is served less faithful. Data: a
synthetic world of 1,500 members, and the slice of KuaiRand-Pure in the protocol of kuairand_law.py,
with sessions that end after a pause of half an hour, of six hours, or at midnight: the longer a
session, the more it can show. One rung of the ladder, three seeds, learning rate of the preset for
all. Architectures are ordered by AUC; Kendall's tau compares the order by reported with the order
by faithful numbers, and a pair counts as reversed if both differences, paired by seed, exclude
zero.

Expected: numbers are in experiments/results/session_leak.json. Time: three hours on two cores.
"""

import argparse
import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from lib.comparison import t_interval
from lib.kuairand.data import SLICE, Form, prepare_days
from lib.options import make_parser
from lib.results import Cell, Column, Study
from lib.sweeps import prepared_world, run_sweep, write_sweep
from scipy import stats

from ligr_jax.data.records import Records
from ligr_jax.runs.table import read_runs
from ligr_jax.scaling.shipped import UNIFIED, grid
from ligr_jax.train.evaluate import Evaluator, config_here, restore_state
from ligr_jax.train.program import Program

SEEDS = (0, 1, 2)
MASKS = ("session", "causal")
READINGS = ("reported", "served", "faithful")
KUAIRAND = {
    "kuairand-30m": Form("targets", pause_h=0.5),
    "kuairand-6h": Form("targets"),
    "kuairand-days": Form("targets", whole_days=True),
}
PRESETS = {"world": "demo-4", "kuairand": "kuairand-4"}
SPLITS = {"world": "validation", "kuairand": "test"}
ACTIONS = {"world": ("long_dwell", "contribution"), "kuairand": ("click", "long_dwell")}

Readings = dict[tuple[str, int, str], float]  # by architecture, seed and reading


def main() -> None:
    args = arguments()
    study = Study.of(__file__, __doc__, SEEDS)
    rows: list[list[Cell]] = []
    orders: list[list[Cell]] = []
    for name in args.data:
        data = prepared(args, name)
        out = args.out / name
        if not args.no_runs:
            train(args, name, data, out)
        kind = name.partition("-")[0]
        metrics = measured(args, out, data, SPLITS[kind])
        for action in ACTIONS[kind]:
            readings = {key: values[f"{SPLITS[kind]}/{action}/auc"]
                        for key, values in metrics.items()}  # fmt: skip
            rows += leak_rows(args, name, action, readings)
            orders.append(order_row(args, name, action, readings))
    add_tables(study, rows, orders)
    study.record(args.record)


def prepared(args: argparse.Namespace, name: str) -> Path:
    """Return the prepared data of one case."""
    if name == "world":
        return prepared_world(args.out / "world", args.members)
    form = KUAIRAND[name]
    return prepare_days(args.slice, args.out / "prepared" / str(form), form)


def train(args: argparse.Namespace, name: str, data: Path, out: Path) -> None:
    """Train every architecture with both masks; finished runs are skipped."""
    preset = PRESETS[name.partition("-")[0]]
    files = [
        write_sweep(
            out / "sweeps" / f"{arm}.yaml",
            {
                "name": arm,
                **grid(
                    f"{arm} with both masks",
                    {
                        "preset": preset,
                        "change": UNIFIED[arm],
                        "model.mask": MASKS,
                        "train.seed": SEEDS,
                    },
                ),
            },
        )
        for arm in args.arms
    ]
    run_sweep(files, data, out / "runs", "track.wandb=off", together=len(SEEDS))


def measured(
    args: argparse.Namespace, out: Path, data: Path, split: str
) -> dict[tuple[str, int, str], Mapping[str, Any]]:
    """Return the metrics of every architecture, seed and reading."""
    table = read_runs(out / "runs").table
    metrics: dict[tuple[str, int, str], Mapping[str, Any]] = {}
    columns = ("run", "sweep", "config/train.seed", "config/model.mask")
    for run, arm, seed, mask in table.select(columns).iter_rows():
        if arm not in args.arms:
            continue
        own = table.filter(pl.col("run") == run).row(0, named=True)
        metrics[arm, seed, "faithful" if mask == "session" else "reported"] = own
        if mask == "causal":
            metrics[arm, seed, "served"] = served_metrics(out / "runs" / run, data, split)
    return metrics


def served_metrics(run: Path, data: Path, split: str) -> dict[str, Any]:
    """Return the metrics of a run under the session mask."""
    config = config_here(run)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, mask="session"))
    evaluator = Evaluator(Program(config), Records(data, config.data.edges))
    return evaluator(restore_state(run, evaluator.program), split)


def leak_rows(
    args: argparse.Namespace, name: str, action: str, readings: Readings
) -> list[list[Cell]]:
    """Return the AUC of every architecture in each reading, and the differences by seed."""
    rows: list[list[Cell]] = []
    for arm in args.arms:
        by_seed = {r: np.array([readings[arm, s, r] for s in SEEDS]) for r in READINGS}
        leak = by_seed["reported"] - by_seed["faithful"]
        cost = by_seed["served"] - by_seed["faithful"]
        means = (float(values.mean()) for values in by_seed.values())
        rows.append([name, action, arm, *means, t_interval(leak), t_interval(cost)])
    return rows


def order_row(args: argparse.Namespace, name: str, action: str, readings: Readings) -> list[Cell]:
    """Return whether the leak changes the order of the architectures."""
    values = {
        r: np.array([[readings[arm, s, r] for s in SEEDS] for arm in args.arms]) for r in READINGS
    }
    means = {r: x.mean(1) for r, x in values.items()}
    tau = {r: stats.kendalltau(means["faithful"], means[r]).statistic for r in READINGS[:2]}
    reversed_pairs = [
        f"{args.arms[i]} and {args.arms[j]}"
        for i, j in itertools.combinations(range(len(args.arms)), 2)
        if _sign(values["faithful"][i] - values["faithful"][j])
        * _sign(values["reported"][i] - values["reported"][j])
        < 0
    ]
    best = {r: args.arms[int(np.argmax(means[r]))] for r in ("reported", "faithful")}
    return [
        name,
        action,
        float(tau["reported"]),
        float(tau["served"]),
        best["reported"],
        best["faithful"],
        "; ".join(reversed_pairs) or "none",
    ]


def _sign(difference: np.ndarray) -> int:
    """Return the sign of a mean difference whose 90 % interval excludes zero; else 0."""
    interval = t_interval(difference)
    return int(interval["low"] > 0) - int(interval["high"] < 0)


def add_tables(study: Study, rows: list[list[Cell]], orders: list[list[Cell]]) -> None:
    """Add the size of the leak, and the orders."""
    columns = [
        Column("data"),
        Column("action"),
        Column("architecture"),
        *(Column(f"AUC, {reading}", ".4f") for reading in READINGS),
        Column("leak: reported less faithful", "+.4f"),
        Column("cost: served less faithful", "+.4f"),
    ]
    caption = "Means of three seeds; differences paired by seed, 90 % intervals."
    study.add("leak", caption, columns, rows)
    columns = [
        Column("data"),
        Column("action"),
        Column("tau, reported", ".2f"),
        Column("tau, served", ".2f"),
        Column("best, reported"),
        Column("best, faithful"),
        Column("reversed pairs"),
    ]
    caption = (
        "Order of the architectures by AUC: Kendall's tau with the order of the faithful models; "
        "pairs whose order by reported numbers is the reverse, both differences beyond noise."
    )
    study.add("order", caption, columns, orders)


def arguments() -> argparse.Namespace:
    cases = ("world", *KUAIRAND)
    parser = make_parser(__file__, __doc__)
    add = parser.add_argument
    add("--data", nargs="+", choices=cases, default=list(cases), help="[all]")
    add("--slice", type=Path, default=SLICE, help="the slice of KuaiRand-Pure [%(default)s]")
    add("--out", type=Path, default=Path("runs/session_leak"), help="[%(default)s]")
    add("--members", type=int, default=1500, help="of the world [%(default)s]")
    add("--arms", nargs="+", choices=UNIFIED, default=list(UNIFIED), help="[all]")
    add("--no-runs", action="store_true", help="report finished runs only")
    return parser.parse_args()


if __name__ == "__main__":
    main()
