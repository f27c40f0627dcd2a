"""The rows that `ligr fit` uses: conditions, one law per value of a column, marks of runs."""

import argparse

import polars as pl

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.rows import marks


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
    for option, value in (("--family", args.family), ("--weight", args.weight)):
        if args.leave_out is not None and value is not None:
            raise BadInput(f"--leave-out fits without {option}: leave one of them out")
    if args.mark is None and (args.run, args.epoch) != ("run", "epoch"):
        raise BadInput("--run and --epoch apply to --mark best or last; also give --mark")


def rows_to_fit(
    table: pl.DataFrame, lower: bool, args: argparse.Namespace
) -> tuple[pl.DataFrame, list[str]]:
    """Return the rows to fit, and notes on the marks."""
    if args.mark is None:
        return table, []
    return marks(table, args.mark, args.metric, lower, args.run, args.epoch)


def other_mark(table: pl.DataFrame, lower: bool, args: argparse.Namespace) -> pl.DataFrame | None:
    """Return the rows of the last marks where the best are fitted, and the reverse."""
    other = {"best": "last", "last": "best"}.get(args.mark)
    if other is None:
        return None
    return marks(table, other, args.metric, lower, args.run, args.epoch)[0]
