"""The rows that `ligr fit` uses: conditions, one law per value of a column, marks of runs."""

import argparse
import logging
from collections.abc import Sequence

import numpy as np

from ligr_jax.data.schema import BadInput
from ligr_jax.runs.run_table import RunTable
from ligr_jax.runs.table import Runs
from ligr_jax.scaling.missing import runs_without_metric
from ligr_jax.scaling.rows import distinct, marks, select, text_column

_log = logging.getLogger(__name__)

SHOWN = 50  # most rows left out that are named


def add_rows(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose rows."""
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="COND",
        help="use rows with COL=VALUE (!=, <, <=, >, >=); may be given several times",
    )
    parser.add_argument(
        "--by", metavar="COL", help="fit one law per value of this column and test their equality"
    )
    parser.add_argument(
        "--mark",
        choices=("best", "last", "all"),
        help="which row of each run to fit, if the table has several (of --run, in --epoch)",
    )
    parser.add_argument(
        "--run", default="run", metavar="COL", help="column of the run (%(default)s)"
    )
    parser.add_argument(
        "--epoch", default="epoch", metavar="COL", help="column of the epoch (%(default)s)"
    )
    parser.add_argument(
        "--group",
        metavar="COL",
        help="column of labels; the bootstrap draws rows of one label together, e.g. run",
    )


def refuse_rows(args: argparse.Namespace) -> None:
    """Raise BadInput for options of rows that exclude each other."""
    single = [("--leave-out", args.leave_out), ("--register", args.register), ("--at", args.at)]
    for option, value in single:
        if args.by and value is not None:
            raise BadInput(f"--by fits several laws, so {option} does not apply: use --where")
    if args.mark is None and (args.run, args.epoch) != ("run", "epoch"):
        raise BadInput("--run and --epoch apply to --mark best or last; also give --mark")


def usable_rows(found: Runs, scales: Sequence[str], args: argparse.Namespace) -> RunTable:
    """Return the finished runs that meet the conditions of `--where`, each row once.

    Left out are runs that beat the oracle or train on a leak, and runs without a finite metric or
    epoch, a positive scale or weight, or a label. A warning names each of them, and why.

    Args:
        found: the runs.
        scales: columns of the scales of the form.
        args: the arguments.
    """
    metric = args.metric
    positive = [name for name in (*scales, args.weight) if name]
    epoch = [args.epoch] if args.mark in ("best", "last") else []
    labels = [name for name in (args.family, args.group) if name]
    found.require_numbers([metric, *positive, *epoch])
    if metric in scales:
        raise BadInput(f"{metric!r} is both the metric and a scale; give two columns")
    left_out = [f"{name}: {why}" for name, why in found.failed]
    left_out += [f"{name}: not finished, {reached}" for name, reached in found.unfinished]
    table = RunTable(select(found.table, args.where))
    leaks = table.leaks
    left_out += [
        f"{name}: it beats the oracle, so labels leak into its inputs"
        for name in table.where(table.beats_oracle).names
    ]
    left_out += [
        f"{name}: it trains on actions of its own session (model.mask=causal), a leak"
        for name in table.where(leaks & ~table.beats_oracle).names
    ]
    table = table.where(~leaks)
    for why, runs in runs_without_metric(table, metric).items():
        left_out += [f"{name}: {metric} is not a finite number, {why}" for name in runs]
    table = table.where(np.isfinite(table.numbers(metric)))
    for column in (*positive, *epoch):
        values = table.numbers(column)
        valid = np.isfinite(values) & (values > 0 if column in positive else True)
        kind = "positive" if column in positive else "finite"
        left_out += [
            f"{name}: {column} is {value:g}, not a {kind} number".replace(" is nan,", " is empty,")
            for name, value in zip(table.where(~valid).names, values[~valid])
        ]
        table = table.where(valid)
    for column in labels:
        valid = np.array(text_column(table.frame, column)) != ""
        left_out += [f"{name}: {column} is empty" for name in table.where(~valid).names]
        table = table.where(valid)
    for line in left_out[:SHOWN]:
        _log.warning(f"left out {line}")
    if len(left_out) > SHOWN:
        _log.warning(f"left out {len(left_out) - SHOWN} more rows for such reasons")
    if not len(table):
        raise BadInput(
            f"{args.path}: no finished runs with a finite {' and '.join([metric, *scales])}"
        )
    kept, copies = distinct(table.frame)
    if copies:
        _log.warning(copies)
    return RunTable(kept)


def rows_to_fit(whole: RunTable, lower: bool, args: argparse.Namespace) -> RunTable:
    """Return the rows to fit: the marks of `--mark`, or all; notes are logged."""
    table = whole
    if args.mark is not None:
        frame, notes = marks(whole.frame, args.mark, args.metric, lower, args.run, args.epoch)
        table = RunTable(frame)
        for note in notes:
            _log.warning(note)
    if args.group is None and len(set(table.names)) < len(table):
        _log.warning(
            "several rows are of one run and not independent, so intervals are too narrow: give "
            "--group run, or one mark of each run by --mark"
        )
    return table


def other_mark(whole: RunTable, lower: bool, args: argparse.Namespace) -> RunTable | None:
    """Return the rows of the last marks where the best are fitted, and the reverse."""
    other = {"best": "last", "last": "best"}.get(args.mark)
    if other is None:
        return None
    return RunTable(marks(whole.frame, other, args.metric, lower, args.run, args.epoch)[0])
