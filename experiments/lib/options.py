"""The options that every experiment has."""

import argparse
from pathlib import Path

from lib.results import RESULTS


def make_parser(script: str, doc: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help is the head of the script, with `--record`."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    name = f"{Path(script).stem}.json"
    parser.add_argument(
        "--record",
        type=Path,
        nargs="?",
        const=RESULTS / name,
        metavar="FILE",
        help=f"write the tables with commit, date and versions [experiments/results/{name}]",
    )
    return parser
