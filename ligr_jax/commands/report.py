"""Draw sweeps: a self-contained page, figures as PNG, SVG and CSV, the fits as JSON, runs as CSV.

examples:
  ligr report runs/ladder                              writes report.html, figures/, fit.json there
  ligr report runs/seq_len runs/depth --out site/      several sweeps as one study
  ligr report runs.csv --out site/                     any table of runs with the summary's columns
"""

import argparse

from ligr_jax.commands.arguments import count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sweeps", nargs="+", metavar="DIR", help="sweeps' directories, or runs as .csv or .parquet"
    )
    parser.add_argument("--out", help="where to write (default: the directory, if it is one)")
    parser.add_argument("--bootstrap", type=count, default=1000, help="resamples (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Writes the report and prints its lines and the page's path."""
    from ligr_jax.scaling.report import write_report  # matplotlib takes a second to import

    numbers = write_report(*args.sweeps, out=args.out, resamples=args.bootstrap)
    print(*numbers["lines"], numbers["page"], sep="\n")
    return 0
