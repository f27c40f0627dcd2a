"""Fit a scaling law to finished runs, or to any table of runs.

examples:
  ligr fit runs/ladder                                  validation NE as a function of counted FLOPs
  ligr fit runs/ladder --floor oracle                   the floor is the NE of the oracle
  ligr fit runs/ladder --metric validation/click/auc    a higher-is-better metric: a line
  ligr fit runs/ladder --metric validation/click/auc --form saturating    a curve with a ceiling
  ligr fit runs/ladder --leave-out 1                    predict the largest budget from the others
  ligr fit runs/ladder --at 1e18                        predict a run, with its interval
  ligr fit runs/ladder --register next.json --at 1e18   write a prediction before that run starts

any table of runs: .csv, .tsv, .jsonl (also .gz, .zst), .parquet; exports of W&B and MLflow:
  ligr fit runs.csv --metric loss --axis flops --json
  ligr fit runs.csv --form chinchilla --n N --d D --loss loss --json    E + A N^-alpha + B D^-beta
  ligr fit runs.csv --form chinchilla --n N --d D --unique U --loss loss    repeated data
  ligr fit runs.csv --form isoflop --axis flops --n N --loss loss    best N at each budget
  ligr fit wandb:team/project --filters '{"state": "finished"}' --axis flops --loss val/loss
  ligr fit runs.csv --axis flops --metric score --higher    a metric whose name is not known
  ligr fit marks.csv --axis flops --loss val_loss --group run    several rows of each run
"""

import argparse
import json
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl

from ligr_jax.commands.arguments import add_metric, count, direction_of, positive_int
from ligr_jax.data.schema import BadInput
from ligr_jax.runs.table import WANDB, Runs, column, read_runs, shapes
from ligr_jax.scaling.fit import (
    IsoFlop,
    Law,
    LeftOut,
    SurfaceLaw,
    fit_isoflop,
    fit_line,
    fit_power,
    fit_saturating,
    fit_surface,
    leave_out_budgets,
    leave_out_largest,
    predict_run,
    preregister,
)
from ligr_jax.scaling.missing import runs_without_metric
from ligr_jax.scaling.rows import distinct, text_column
from ligr_jax.strict_json import print_json

_log = logging.getLogger(__name__)

FORMULAS = {
    "power": "E + A C^-alpha",
    "line": "level + slope log10 C",
    "saturating": "ceiling - A C^-alpha",
    "chinchilla": "E + A N^-alpha + B D^-beta",
    "isoflop": "a parabola in log N at each C, least at N = coefficient C^exponent",
}
FITS: dict[str, Callable[..., Any]] = {
    "power": fit_power,
    "line": fit_line,
    "saturating": fit_saturating,
    "chinchilla": fit_surface,
    "isoflop": fit_isoflop,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", help="directory of a sweep, or a table of runs (see below)")
    parser.add_argument(
        "--filters", metavar="JSON", help="which runs of wandb:ENTITY/PROJECT are read (all)"
    )
    add_metric(parser)
    parser.add_argument(
        "--axis", default="flops_model", metavar="COL", help="column of compute (%(default)s)"
    )
    parser.add_argument("--form", choices=FORMULAS, help="default: power for a loss, else line")
    parser.add_argument("--floor", default="free", help="E: free, oracle or a number (%(default)s)")
    parser.add_argument(
        "--n", default="params_dense", metavar="COL", help="column of parameters (%(default)s)"
    )
    parser.add_argument(
        "--d", default="tokens", metavar="COL", help="column of data seen (%(default)s)"
    )
    parser.add_argument(
        "--unique", metavar="COL", help="column of unique data, if data are repeated"
    )
    parser.add_argument(
        "--group",
        metavar="COL",
        help="column of labels; the bootstrap draws rows of one label together, e.g. run",
    )
    parser.add_argument(
        "--bootstrap", type=count, default=1000, help="bootstrap resamples (%(default)s)"
    )
    parser.add_argument(
        "--leave-out", type=positive_int, metavar="K", help="also fit without the K largest budgets"
    )
    parser.add_argument("--register", metavar="FILE", help="write the prediction at --at to FILE")
    parser.add_argument("--at", help="print the prediction of a run: C, or N,D for chinchilla")
    parser.add_argument("--json", action="store_true", help="print the law as JSON")


def run(args: argparse.Namespace) -> int:
    """Fit and print one law.

    Raises:
        BadInput: the runs do not determine a law; the message says why.
    """
    if args.register and args.at is None:
        raise BadInput("--register writes a prediction: also give the run to predict with --at")
    lower = direction_of(args)
    form = args.form or ("power" if lower else "line")
    _refuse_unused(form, args)
    table = _usable(_read(args), args.path, args.metric, _scale_columns(form, args))
    scales, options = _arguments(form, lower, table, args)
    metric = column(table, args.metric)
    law = FITS[form](*scales, metric, **options)
    left: list[LeftOut] | None = None
    if args.leave_out is not None and form == "isoflop":
        budget, size = scales
        left = leave_out_budgets(budget, size, metric, args.leave_out, **options)
    elif args.leave_out is not None:
        left = leave_out_largest(FITS[form], scales, metric, args.leave_out, **options)
    prediction = None if args.at is None else _predict(law, args)
    if args.json:
        found = law.to_json()
        if prediction is not None:
            found["prediction"] = prediction
        if left is not None:
            found["left_out"] = [vars(r) | {"error": r.error, "covered": r.covered} for r in left]
        print_json(found)
    else:
        lines = [*_text(law, args), *map(_left_out, left or [])]
        if prediction is not None:
            lines.append(
                "predicted {metric} at {at}: {predicted:.5g}   "
                "{confidence:.0%} interval {low:.5g} to {high:.5g}".format_map(prediction)
            )
        print("\n".join(lines))
    return 0


def _refuse_unused(form: str, args: argparse.Namespace) -> None:
    """Raise BadInput for an option that the fit of this form would ignore."""
    for option, value, default, of in (
        ("--floor", args.floor, "free", "power"),
        ("--unique", args.unique, None, "chinchilla"),
    ):
        if value != default and form != of:
            raise BadInput(f"{option} {value} applies to --form {of} only, and the form is {form}")


def _scale_columns(form: str, args: argparse.Namespace) -> list[str]:
    """Return the columns of the scales of a form."""
    named = {"chinchilla": [args.n, args.d, args.unique], "isoflop": [args.axis, args.n]}
    return [name for name in named.get(form, [args.axis]) if name]


def _read(args: argparse.Namespace) -> Runs:
    """Read the runs of the path and of `--filters`."""
    if args.filters is None:
        return read_runs(args.path)
    if not args.path.startswith(WANDB):
        raise BadInput(f"--filters applies to {WANDB}ENTITY/PROJECT only, and not to {args.path}")
    try:
        filters = json.loads(args.filters)
    except ValueError as e:
        raise BadInput(f"--filters {args.filters}: not JSON ({e})") from None
    if not isinstance(filters, dict):
        raise BadInput(f'--filters {args.filters}: not an object, e.g. \'{{"state": "finished"}}\'')
    return read_runs(args.path, filters=filters)


def _usable(found: Runs, path: str, metric: str, scales: Sequence[str]) -> pl.DataFrame:
    """Return the finished runs that have a finite metric and scales and do not beat the oracle.

    A warning names each run that is left out, and why.
    """
    found.require_numbers([metric, *scales])
    left_out = [f"{name}: {why}" for name, why in found.failed]
    left_out += [f"{name}: not finished, {reached}" for name, reached in found.unfinished]
    table = found.table
    if "beats_oracle" in table.columns:
        leaks = table["beats_oracle"].cast(pl.Boolean).fill_null(False)
        names = table.filter(leaks)["run"]
        left_out += [
            f"{name}: it beats the oracle, so labels leak into its inputs" for name in names
        ]
        table = table.filter(~leaks)
    if not table.is_empty():
        for why, runs in runs_without_metric(table, metric, np.ones(len(table), bool)).items():
            left_out += [f"{name}: {metric} is not a finite number, {why}" for name in runs]
        table = table.filter(np.isfinite(column(table, metric)))
        for scale in scales:
            finite = np.isfinite(column(table, scale))
            names = table.filter(~finite)["run"]
            left_out += [f"{name}: {scale} is not a finite number" for name in names]
            table = table.filter(finite)
        table, copies = distinct(table)
        if copies:
            _log.warning(copies)
    for line in left_out:
        _log.warning(f"left out {line}")
    if table.is_empty():
        raise BadInput(f"{path}: no finished runs with a finite {' and '.join([metric, *scales])}")
    return table


def _arguments(
    form: str, lower: bool, table: pl.DataFrame, args: argparse.Namespace
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the scales of a form, one value per run, and the options of its fit."""
    labels = shapes(table) if args.group is None else text_column(table, args.group)
    options: dict[str, Any] = {
        "runs": table["run"].to_list(),
        "groups": labels if 1 < len(set(labels)) < len(labels) else None,
        "resamples": args.bootstrap,
    }
    if form == "power":
        options["floor"] = _floor(args, table)
    if form == "line":
        options["higher_is_better"] = not lower
    if form == "chinchilla":
        if args.unique:
            options["unique"] = column(table, args.unique)
        return (column(table, args.n), column(table, args.d)), options
    compute = column(table, args.axis)
    return ((compute, column(table, args.n)) if form == "isoflop" else (compute,)), options


def _floor(args: argparse.Namespace, table: pl.DataFrame) -> float | None:
    if args.floor == "free":
        return None
    if args.floor == "oracle":
        return float(column(table, f"oracle/{args.metric}").mean())
    try:
        return float(args.floor)
    except ValueError:
        raise BadInput(f"--floor {args.floor}: give free, oracle or a number") from None


def _predict(law: Law | SurfaceLaw | IsoFlop, args: argparse.Namespace) -> dict[str, Any]:
    """Return the prediction at `--at`, and write it to the file of `--register`."""
    try:
        point = [float(v) for v in args.at.split(",")]
    except ValueError:
        point = []
    if not point or not all(0 < value < math.inf for value in point):
        raise BadInput(f"--at {args.at}: give C (or N,D for chinchilla) of the run to predict")
    metric = args.metric
    if isinstance(law, IsoFlop):
        if args.register:
            raise BadInput("--register: isoflop predicts a size, not a metric; use another form")
        if len(point) > 1:
            raise BadInput(f"--at {args.at}: an isoflop law takes one value, C")
        metric, (predicted, low, high) = f"best {args.n}", map(float, law.predict(point[0]))
    else:
        made = (
            preregister(args.register, law, point, metric)
            if args.register
            else predict_run(law, point)
        )
        predicted, low, high = made.predicted, made.low, made.high
    return {
        "metric": metric,
        "at": args.at,
        "point": point,
        "predicted": predicted,
        "low": low,
        "high": high,
        "confidence": law.confidence,
    }


def _text(law: Law | SurfaceLaw | IsoFlop, args: argparse.Namespace) -> list[str]:
    where = {
        "chinchilla": f"N = {args.n}, D = {args.d}",
        "isoflop": f"N = {args.n}, C = {args.axis}",
    }
    lines = [
        f"{args.metric} = {FORMULAS[law.form]}, {where.get(law.form, f'C = {args.axis}')}, "
        f"{law.points} runs"
    ]
    for name, value in law.params.items():
        span = law.intervals.get(name)
        interval = (
            f"   {law.confidence:.0%} interval {span[0]:.5g} to {span[1]:.5g}" if span else ""
        )
        lines.append(f"  {name:16} {value:.5g}{interval}")
    if isinstance(law, IsoFlop):
        lines += [
            f"  best N at {b.compute:.4g} FLOPs {b.optimum:.4g} ({b.low:.4g} to {b.high:.4g})"
            for b in law.budgets
            if not b.at_edge
        ]
    return [*lines, *(f"note: {w}" for w in law.warnings)]


def _left_out(row: LeftOut) -> str:
    return (
        f"left out {row.run}: {row.observed:.5g} observed, {row.predicted:.5g} predicted "
        f"({row.low:.5g} to {row.high:.5g}: {'covered' if row.covered else 'missed'})"
    )
