"""Does quality follow a scaling law on a real feed, and which dimension pays?

    python experiments/kuairand_law.py                   everything, resumable
    python experiments/kuairand_law.py --parts ladder    one part; without training: --no-runs
    python experiments/kuairand_law.py --quick           the six smallest rungs, one seed

Data: the slice of KuaiRand-Pure with its earlier rows as training targets: 952,674 impressions to
4 May to train on, 5 May to choose on, 13,469 impressions of 6 May to report. The sweeps are
sweeps/tiny/kuairand-*.yaml: one pass, three seeds of the five small rungs, rates transferred by muP
from a width of 16. Intervals are 90 % and over runs; the members of 6 May, which all runs share,
move all of them together by about 0.005 in AUC.

Expected: AUC rises by 0.013 a decade, less at the large rungs; length and data pay, depth and table
width do not, and the learning rate transfers. Numbers:
experiments/results/kuairand_law.json. Time: about an hour on two cores, with other work on them.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from lib.kuairand.data import SLICE, Form, prepare_days
from lib.options import make_parser
from lib.results import Cell, Column, Study, interval, mean_cell
from lib.sweeps import run_sweep, write_sweep

from ligr_jax.messages import show_messages
from ligr_jax.runs.table import column, read_runs
from ligr_jax.scaling.fit import fit_line, fit_power, fit_saturating, leave_out_largest
from ligr_jax.scaling.fit.form_fit import fit_form
from ligr_jax.scaling.fit.forms import FORMS
from ligr_jax.scaling.ladder import KUAIRAND
from ligr_jax.scaling.shipped import grid

SWEEPS = Path(__file__).parents[1] / "sweeps" / "tiny"
SEEDS = (0, 1, 2)
QUICK = 6  # rungs
DATA = Form("targets", context_block=10)  # earlier rows are targets, in sessions of 10
# Metric on 6 May, and whether it rises.
METRICS = {
    "test/ne": ("NE, mean of four actions", False),
    "test/click/ne": ("click NE", False),
    "test/click/auc": ("click AUC", True),
    "test/long_dwell/auc": ("long dwell AUC", True),
    "test/click/gauc": ("click GAUC", True),
}
PAPER = {"long dwell AUC": "+0.015"}  # LiGR, figure 7, per decade of its axis
DIMENSIONS = {
    "seq_len": "data.seq_len",
    "depth": "model.depth",
    "width": "model.width",
    "embed_dim": "model.table_width",
    "data": "data.fraction",
}
RATE = "config/optim.dense_lr"


def main() -> None:
    show_messages()
    args = arguments()
    study = Study.of(__file__, __doc__, SEEDS[:1] if args.quick else SEEDS)
    prepared = prepare_days(args.data, args.out / "prepared", DATA)
    for part in args.parts:
        names, add = PARTS[part]
        if not args.no_runs:
            train(args, prepared, names)
        add(study, args.out / "runs")
    study.record(args.record)


def train(args: argparse.Namespace, prepared: Path, names: Sequence[str]) -> None:
    """Train the sweeps of a part; finished runs are skipped."""
    files = [SWEEPS / f"kuairand-{name}.yaml" for name in names]
    if args.quick:
        small = grid("the small rungs", {"preset": list(KUAIRAND.presets())[:QUICK]})
        files = [write_sweep(args.out / "quick.yaml", {"name": "kuairand-ladder", **small})]
    run_sweep(files, prepared, args.out / "runs", "track.wandb=off", together=5)


def runs_of(runs: Path, *sweeps: str) -> pl.DataFrame:
    """Return the finished runs of some sweeps, in order of their FLOPs."""
    table = read_runs(runs).table
    names = pl.col("sweeps").str.split(", ")
    return table.filter(
        pl.any_horizontal(names.list.contains(f"kuairand-{sweep}") for sweep in sweeps)
    ).sort("flops_model")


def add_rates(study: Study, runs: Path) -> None:
    """Add the NE on 5 May by learning rate, for a small and a large rung."""
    table = runs_of(runs, "rate")
    rates = sorted(table[RATE].unique())
    rows: list[list[Cell]] = []
    for (width,), rung in table.group_by("config/model.width", maintain_order=True):
        ne = dict(zip(rung[RATE], column(rung, "validation/ne")))
        rows.append([f"width {width}", *(float(ne[rate]) for rate in rates)])
    columns = [Column("rung"), *(Column(f"{rate:g}", ".4f") for rate in rates)]
    study.add("rate", "NE on 5 May by learning rate, one seed.", columns, rows)


def add_ladder(study: Study, runs: Path) -> None:
    """Add the rungs, the law of each metric, and the prediction of the largest rung."""
    table = runs_of(runs, "ladder", "seeds")
    shapes = shape_labels(table)
    rows: list[list[Cell]] = []
    for shape in dict.fromkeys(shapes):
        rung = table.filter(pl.Series([s == shape for s in shapes]))
        cells = [mean_cell(column(rung, name).tolist()) for name in METRICS]
        size = [float(rung["flops_model"][0]), int(rung["params/dense"][0]), rung.height]
        rows.append([shape, *size, *cells])
    columns = [
        Column("tokens, layers, width"),
        Column("FLOPs", ".1e"),
        Column("dense parameters", ",d"),
        Column("seeds", "d"),
        *(Column(head, ".4f") for head, _ in METRICS.values()),
    ]
    study.add("ladder", "6 May: mean ± standard deviation over the seeds.", columns, rows)
    add_slopes(study, table, shapes)
    add_prediction(study, table, shapes)


def add_slopes(study: Study, table: pl.DataFrame, shapes: list[str]) -> None:
    """Add the change of each metric per decade, over all rungs and over each half of the decades.

    A law that holds over all decades has equal slopes in both halves.
    """
    flops = column(table, "flops_model")
    middle = float(np.sqrt(flops.min() * flops.max()))
    parts = {
        "all": np.ones(len(flops), bool),
        "lower half": flops <= middle,
        "upper half": flops >= middle,
    }
    rows: list[list[Cell]] = []
    for name, (head, rises) in METRICS.items():
        row: list[Cell] = [head]
        for used in parts.values():
            labels = [s for s, u in zip(shapes, used) if u]
            law = fit_line(
                flops[used], column(table, name)[used], higher_is_better=rises, groups=labels
            )
            # Two rungs have a slope, and no interval.
            ends = law.intervals.get("slope")
            slope = law.params["slope"]
            row.append(interval(slope, *ends) if ends else slope)
        rows.append([*row, PAPER.get(head, "")])
    columns = [
        Column("metric"),
        *(Column(f"per decade, {part}", "+.4f") for part in parts),
        Column("paper"),
    ]
    caption = "Change per decade of FLOPs (flops_model), 90 % intervals."
    study.add("slopes", caption, columns, rows)


def add_prediction(study: Study, table: pl.DataFrame, shapes: list[str]) -> None:
    """Add the prediction of the largest rung from the others, by a power law and by a line."""
    rows: list[list[Cell]] = []
    for name, (head, rises) in METRICS.items():
        for form, fit in (("power", fit_saturating if rises else fit_power), ("line", fit_line)):
            options: dict[str, Any] = {"higher_is_better": rises} if form == "line" else {}
            try:
                left_out = leave_out_largest(
                    fit,
                    column(table, "flops_model"),
                    column(table, name),
                    groups=shapes,
                    **options,
                )[0]
            except ValueError as e:
                rows.append([head, form, str(e), None, ""])
                continue
            predicted = interval(left_out.predicted, left_out.low, left_out.high)
            covered = "yes" if left_out.covered else "no"
            rows.append([head, form, predicted, left_out.observed, covered])
    columns = [
        Column("metric"),
        Column("law"),
        Column("predicted", ".4f"),
        Column("measured", ".4f"),
        Column("inside the interval"),
    ]
    caption = "The largest rung, predicted from the other rungs; 90 % prediction intervals."
    study.add("prediction", caption, columns, rows)


def add_dimensions(study: Study, runs: Path) -> None:
    """Add what each dimension alone changes, per doubling, and what it costs on two axes."""
    rows: list[list[Cell]] = []
    for sweep, name in DIMENSIONS.items():
        table = runs_of(runs, sweep).sort(f"config/{name}")
        sizes = column(table, f"config/{name}")
        row: list[Cell] = [f"{sweep}, {sizes[0]:g} to {sizes[-1]:g}"]
        for metric in ("test/ne", "test/click/auc"):
            values = column(table, metric)
            row.append({"low": float(values[0]), "high": float(values[-1])})
        law = fit_line(sizes, column(table, "test/click/auc"))
        slope = (law.params["slope"], *law.intervals["slope"])
        row.append(interval(*(np.log10(2) * x for x in slope)))
        for axis in ("flops_model", "flops_paper"):
            compute = column(table, axis)
            row.append(float(compute[-1] / compute[0]))
        rows.append(row)
    columns = [
        Column("dimension"),
        Column("NE", ".4f"),
        Column("click AUC", ".4f"),
        Column("AUC per doubling", "+.4f"),
        Column("flops_model, times", ".2g"),
        Column("flops_paper, times", ".2g"),
    ]
    caption = (
        "One dimension of rung 4 alone, one seed: metrics on 6 May at its ends, the change of "
        "click AUC per doubling with its 90 % interval, and the compute of its largest size."
    )
    study.add("dimensions", caption, columns, rows)


def add_epochs(study: Study, runs: Path) -> None:
    """Add what repeated data give: several passes over a quarter of the members and over all."""
    table = runs_of(runs, "epochs")
    epochs = sorted(table["config/train.epochs"].unique())
    rows: list[list[Cell]] = []
    for (fraction,), part in table.sort("config/data.fraction").group_by(
        "config/data.fraction", maintain_order=True
    ):
        for metric in ("test/ne", "test/click/auc"):
            by_epochs = dict(zip(part["config/train.epochs"], column(part, metric)))
            values = [float(by_epochs[e]) for e in epochs]
            rows.append([f"{fraction:g} of the members", METRICS[metric][0], *values])
    columns = [
        Column("data"),
        Column("metric"),
        *(Column(f"{e:g} passes", ".4f") for e in epochs),
    ]
    study.add("epochs", "Repeated data, rung 4, one seed, 6 May.", columns, rows)
    add_repeats(study, runs)


def add_repeats(study: Study, runs: Path) -> None:
    """Add the laws of repeated data, fitted to all runs that vary model, data or passes."""
    table = runs_of(runs, "ladder", "seeds", "data", "epochs", "width").unique("run")
    seen = column(table, "targets")
    scales = {
        "n": column(table, "params/dense"),
        "d": seen,
        "unique": seen / column(table, "config/train.epochs"),
    }
    rows: list[list[Cell]] = []
    for name in ("test/ne", "test/click/ne"):
        for form in ("repeated", "overfitted"):
            law = fit_form(FORMS[form], scales, column(table, name))
            cells = [
                interval(law.params[k], *law.intervals[k]) if k in law.params else None
                for k in ("E", "alpha", "beta", "R_D", "gamma")
            ]
            rows.append([METRICS[name][0], form, table.height, *cells])
    columns = [
        Column("metric"),
        Column("form"),
        Column("runs", "d"),
        *(Column(k, ".3f") for k in ("E", "alpha", "beta", "R_D", "gamma")),
    ]
    caption = (
        "Laws of repeated data in dense parameters and impressions, 90 % "
        "intervals: `repeated` discounts repeats by R_D, `overfitted` adds a term that rises with "
        "the power gamma of parameters times repeats."
    )
    study.add("repeats", caption, columns, rows)


def shape_labels(table: pl.DataFrame) -> list[str]:
    """Return the shape of each run, which its seeds share."""
    names = ("config/data.seq_len", "config/model.depth", "config/model.width")
    return [", ".join(map(str, shape)) for shape in table.select(names).iter_rows()]


PARTS: dict[str, tuple[tuple[str, ...], Callable[[Study, Path], None]]] = {
    "rate": (("rate",), add_rates),
    "ladder": (("ladder", "seeds"), add_ladder),
    "dimensions": (tuple(DIMENSIONS), add_dimensions),
    "epochs": (("epochs",), add_epochs),
}


def arguments() -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    add = parser.add_argument
    add("--data", type=Path, default=SLICE, help="the slice of KuaiRand-Pure [%(default)s]")
    add("--out", type=Path, default=Path("runs/kuairand_law"), help="[%(default)s]")
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    add("--no-runs", action="store_true", help="report finished runs only")
    add("--quick", action="store_true", help="the six smallest rungs, one seed")
    args = parser.parse_args()
    if args.quick:
        args.parts = ["ladder"]
    return args


if __name__ == "__main__":
    main()
