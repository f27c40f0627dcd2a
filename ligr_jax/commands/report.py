"""Write a report of sweeps: a self-contained page, figures, the fits as JSON, the runs as CSV.

examples:
  ligr report runs/ladder                              writes report.html, figures/, fit.json
  ligr report runs/seq_len runs/depth --out site/      several sweeps as one study
  ligr report runs/ladder --watch                      again whenever a run finishes
  ligr report runs.csv --out site/                     a table with the columns of a summary
"""

import argparse

from ligr_jax.commands.arguments import count, positive_float
from ligr_jax.store.mirror import with_uris


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sweeps",
        nargs="+",
        metavar="DIR",
        help="directories of sweeps, or tables of runs (.csv, .parquet)",
    )
    parser.add_argument("--out", help="directory to write (default: that of a single sweep)")
    parser.add_argument(
        "--bootstrap", type=count, default=1000, help="bootstrap resamples (%(default)s)"
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="write the report again whenever a run has finished, until the sweeps end; the page "
        "reloads itself",
    )
    parser.add_argument(
        "--every",
        type=positive_float,
        default=10.0,
        metavar="S",
        help="shortest time between two reports, in seconds (%(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Write the report; print its findings and the path of the page."""
    from ligr_jax.scaling.report import write_report  # matplotlib takes a second to import
    from ligr_jax.scaling.report.watch import watch_report

    options = {"out": args.out, "resamples": args.bootstrap}
    if args.watch:
        numbers = watch_report(*args.sweeps, **options, every_s=args.every)
    else:
        numbers = write_report(*args.sweeps, **options)
    print(*numbers["lines"], with_uris(numbers["page"]), sep="\n")
    return 0
