"""Draw a sweep: a self-contained page, figures as PNG, the fits as JSON, the runs as CSV.

examples:
  ligr report runs/ladder                 writes report.html, figures/, fit.json, runs.csv there
  ligr report runs/ladder --out site/     the same, elsewhere
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", help="a sweep's directory")
    parser.add_argument("--out", help="where to write (default: the same directory)")


def run(args: argparse.Namespace) -> int:
    """Writes the report and prints its three lines and the page's path."""
    from ligr_jax.scaling.report import write_report  # matplotlib takes a second to import

    numbers = write_report(args.directory, args.out)
    print(*numbers["lines"], numbers["page"], sep="\n")
    return 0
