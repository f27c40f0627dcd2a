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
  ligr fit others/ --mapping map.yaml    run directories of another tool
  ligr fit runs.csv --axis flops --metric score --higher    a metric whose name is not known
  ligr fit marks.csv --axis flops --loss val_loss --group run    several rows of each run
  ligr fit marks.csv --axis flops --loss val_loss --mark best --epoch epoch    one of them
  ligr fit runs.csv --axis N --loss loss --where negatives=100 --by D    a law per D, and tests
  ligr fit runs.csv --axis flops --loss loss --family data    common exponent, a floor per family
  ligr fit runs.csv --axis flops --loss loss --frontier    the best run of each budget
  ligr fit runs.csv --form tied --n N --d D --loss loss    alpha = beta: over-trained models
  ligr fit runs.csv --form overfitted --n N --d D --unique U --loss loss    loss that turns up
  ligr fit runs.csv --form isoflop --axis flops --n N --loss loss --minimum window --weighted
  ligr fit runs.csv --form isoflop --axis flops --n N --loss loss --minimum akima --weighted \
    --noise 0.002    the procedure of Porian et al. 2024; 0.002 is the deviation between seeds
  ligr fit optima.csv --form loglog --axis flops --metric n_best --weight w    given optima
  ligr fit runs.csv --form factors --factors width,depth --metric ndcg
"""

import argparse
import logging
from typing import Any

from ligr_jax.commands.arguments import add_metric, count, direction_of, positive_int
from ligr_jax.commands.fit_forms import (
    FORMULAS,
    IN_C,
    add_forms,
    fit_of,
    options_of,
    refuse_unused,
    scale_columns,
)
from ligr_jax.commands.fit_prediction import predict_at, text_of_prediction
from ligr_jax.commands.fit_rows import add_rows, other_mark, refuse_rows, rows_to_fit, usable_rows
from ligr_jax.commands.fit_source import COLUMNS, add_source, mapping_of, read_source
from ligr_jax.commands.fit_text import (
    OPPOSITE,
    json_of_left_out,
    text_of,
    text_of_left_out,
)
from ligr_jax.data.schema import BadInput
from ligr_jax.runs.run_table import RunTable
from ligr_jax.scaling.fit import (
    Law,
    LeftOut,
    equality,
    fit_line,
    leave_out_budgets,
    leave_out_largest,
)
from ligr_jax.scaling.rows import text_column
from ligr_jax.strict_json import print_json

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    add_metric(parser)
    parser.add_argument(
        "--axis", default=COLUMNS["axis"], metavar="COL", help="column of compute (%(default)s)"
    )
    parser.add_argument("--form", choices=FORMULAS, help="default: power for a loss, else line")
    parser.add_argument("--floor", default="free", help="E: free, oracle or a number (%(default)s)")
    parser.add_argument(
        "--n", default=COLUMNS["n"], metavar="COL", help="column of parameters (%(default)s)"
    )
    parser.add_argument(
        "--d", default=COLUMNS["d"], metavar="COL", help="column of data seen (%(default)s)"
    )
    parser.add_argument(
        "--unique", metavar="COL", help="column of unique data, if data are repeated"
    )
    add_rows(parser)
    add_forms(parser)
    parser.add_argument(
        "--bootstrap", type=count, default=1000, help="bootstrap resamples (%(default)s)"
    )
    parser.add_argument(
        "--leave-out", type=positive_int, metavar="K", help="also fit without the K largest budgets"
    )
    parser.add_argument("--register", metavar="FILE", help="write the prediction at --at to FILE")
    parser.add_argument(
        "--at", help="print the prediction of a run: C, or N,D for chinchilla, e.g. 7B,140B"
    )
    parser.add_argument("--json", action="store_true", help="print the law as JSON")


def run(args: argparse.Namespace) -> int:
    """Fit and print one law, or one per value of a column.

    Raises:
        BadInput: the runs do not determine a law; the message says why.
    """
    if args.register and args.at is None:
        raise BadInput("--register writes a prediction: also give the run to predict with --at")
    mapping = mapping_of(args)
    # The sign of a slope, or a law through optima, is the same whichever direction is better.
    lower = direction_of(args, needed=args.form not in ("loglog", "factors") or bool(args.mark))
    form = args.form or ("power" if lower else "line")
    refuse_unused(form, args)
    refuse_rows(args)
    whole = usable_rows(read_source(args, mapping), scale_columns(form, args), args)
    table = rows_to_fit(whole, lower, args)
    return (_print_laws if args.by else _print_law)(form, lower, whole, table, args)


def _print_law(
    form: str, lower: bool, whole: RunTable, table: RunTable, args: argparse.Namespace
) -> int:
    scales, options = _arguments(form, lower, table, args)
    metric = table.numbers(args.metric)
    fit = fit_of(form, lower, args)
    law = fit(*scales, metric, **options)
    left: list[LeftOut] | None = None
    if args.leave_out is not None and form == "isoflop":
        budget, size = scales
        left = leave_out_budgets(budget, size, metric, args.leave_out, **options)
    elif args.leave_out is not None:
        left = leave_out_largest(fit, scales, metric, args.leave_out, **options)
    prediction = None if args.at is None else predict_at(law, args)
    other = _law_of_other_marks(form, whole, table, lower, args)
    if args.json:
        found = law.to_json()
        if prediction is not None:
            found["prediction"] = prediction
        if left is not None:
            found["left_out"] = [json_of_left_out(row) for row in left]
        if other is not None:
            found["other_marks"] = other.to_json()
        print_json(found)
        return 0
    lines = [*text_of(law, args), *map(text_of_left_out, left or [])]
    if other is not None:
        lines += [OPPOSITE, *text_of(other, args)]
    if prediction is not None:
        lines.append(text_of_prediction(prediction))
    print("\n".join(lines))
    return 0


def _print_laws(
    form: str, lower: bool, whole: RunTable, table: RunTable, args: argparse.Namespace
) -> int:
    """Fit one law per value of a column; print them with tests of equal parameters."""
    labels = text_column(table.frame, args.by)
    laws: dict[str, Any] = {}
    others: dict[str, Law] = {}
    for value in dict.fromkeys(labels):
        part = table.where_text(args.by, value)
        scales, options = _arguments(form, lower, part, args)
        try:
            laws[value] = fit_of(form, lower, args)(*scales, part.numbers(args.metric), **options)
        except BadInput as e:
            _log.warning(f"{args.by}={value} has no law: {e}")
        marks = whole.where_text(args.by, value)
        other = _law_of_other_marks(form, marks, part, lower, args)
        if other is not None:
            others[value] = other
    if not laws:
        raise BadInput(f"no value of {args.by} has a law; the messages above say why")
    p = equality(list(laws.values()))
    if args.json:
        found = {value: law.to_json() for value, law in laws.items()}
        opposite = {value: law.to_json() for value, law in others.items()}
        print_json({"by": args.by, "laws": found, "equal": p, "other_marks": opposite})
        return 0
    for value, law in laws.items():
        print("\n".join([f"{args.by} = {value}", *text_of(law, args)]))
        if value in others:
            print("\n".join([OPPOSITE, *text_of(others[value], args)]))
    for name, chance in p.items():
        print(f"{name} is equal in all {len(laws)} laws: p = {chance:.3g}")
    return 0


def _law_of_other_marks(
    form: str, whole: RunTable, table: RunTable, lower: bool, args: argparse.Namespace
) -> Law | None:
    """Return the line through the other marks (best or last) if its slope has the other sign."""
    other = other_mark(whole, lower, args) if form in IN_C else None
    if other is None:
        return None
    options = {"higher_is_better": not lower, "resamples": args.bootstrap, "seed": args.seed}
    scale = scale_columns("line", args)[0]
    try:
        ours, others = (
            fit_line(t.numbers(scale), t.numbers(args.metric), **options) for t in (table, other)
        )
    except BadInput:  # one budget, or a constant metric: there is no sign to compare
        return None
    return others if ours.params["slope"] * others.params["slope"] < 0 else None


def _arguments(
    form: str, lower: bool, table: RunTable, args: argparse.Namespace
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the scales of a form, one value per run, and the options of its fit."""
    labels = table.shapes() if args.group is None else text_column(table.frame, args.group)
    options: dict[str, Any] = {
        "runs": table.names,
        "groups": labels if 1 < len(set(labels)) < len(labels) else None,
        "resamples": args.bootstrap,
    }
    options |= options_of(form, lower, table, args)
    if form == "power" and not args.family:
        options["floor"] = _floor(args, table)
    scales = [table.numbers(name) for name in scale_columns(form, args) if name != args.unique]
    return tuple(scales), options


def _floor(args: argparse.Namespace, table: RunTable) -> float | None:
    if args.floor == "free":
        return None
    if args.floor == "oracle":
        return float(table.numbers(f"oracle/{args.metric}").mean())
    try:
        return float(args.floor)
    except ValueError:
        raise BadInput(f"--floor {args.floor}: give free, oracle or a number") from None
