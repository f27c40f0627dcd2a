"""Fit a scaling law to finished runs, or to any table of runs.

examples:
  ligr fit runs/ladder                                  the law of validation NE in counted FLOPs
  ligr fit runs/ladder --floor oracle                   with the floor at the oracle's NE
  ligr fit runs/ladder --metric validation/click/auc    a higher-is-better metric: a line
  ligr fit runs.csv --metric loss --axis flops --json   any table of runs, as JSON
"""

import argparse
import json
import sys
from typing import Any

import polars as pl

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit import Law, fit_line, fit_power
from ligr_jax.scaling.runs import column, read_runs, shapes

LOWER = ("ne", "loss", "bce", "ece", "nll", "perplexity")  # last word of a metric: lower is better


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", help="a sweep's directory, or runs as .csv or .parquet")
    parser.add_argument("--metric", default="validation/ne", help="column (%(default)s)")
    parser.add_argument("--axis", default="flops_model", help="compute column (%(default)s)")
    parser.add_argument("--form", choices=("power", "line"), help="default: power for a loss")
    parser.add_argument("--floor", default="free", help="E: free, oracle or a number (free)")
    parser.add_argument("--bootstrap", type=int, default=1000, help="resamples (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the law as JSON")


def run(args: argparse.Namespace) -> int:
    """Fits and prints one law; raises BadInput with the reason where there is none."""
    table = read_runs(args.path).table
    if table.is_empty():
        raise BadInput(f"{args.path}: no finished runs")
    if "beats_oracle" in table.columns:
        leaks = table["beats_oracle"].cast(pl.Boolean).fill_null(False)
        for name in table.filter(leaks)["run"]:
            print(f"left out {name}: it beats the oracle, so look for a leak", file=sys.stderr)
        table = table.filter(~leaks)
    labels = shapes(table)
    common: dict[str, Any] = {
        "runs": table["run"].to_list(),
        "groups": labels if 1 < len(set(labels)) < len(labels) else None,
        "resamples": args.bootstrap,
    }
    compute, metric = column(table, args.axis), column(table, args.metric)
    lower = args.metric.replace("_", "/").rsplit("/", 1)[-1].lower() in LOWER
    if (args.form or ("power" if lower else "line")) == "line":
        law = fit_line(compute, metric, higher_is_better=not lower, **common)
    else:
        law = fit_power(compute, metric, floor=_floor(args, table), **common)
    print(json.dumps(law.to_json(), indent=1) if args.json else _text(law, args))
    return 0


def _floor(args: argparse.Namespace, table: pl.DataFrame) -> float | None:
    if args.floor == "free":
        return None
    if args.floor == "oracle":
        return float(column(table, f"oracle/{args.metric}").mean())
    try:
        return float(args.floor)
    except ValueError:
        raise BadInput(f"--floor {args.floor}: give free, oracle or a number") from None


def _text(law: Law, args: argparse.Namespace) -> str:
    formula = {"power": "E + A C^-alpha", "line": "level + slope log10 C"}[law.form]
    lines = [f"{args.metric} = {formula}, C = {args.axis}, {law.points} runs"]
    for name, value in law.params.items():
        span = law.intervals.get(name)
        interval = (
            f"   {law.confidence:.0%} interval {span[0]:.5g} to {span[1]:.5g}" if span else ""
        )
        lines.append(f"  {name:16} {value:.5g}{interval}")
    return "\n".join([*lines, *(f"note: {w}" for w in law.warnings)])
