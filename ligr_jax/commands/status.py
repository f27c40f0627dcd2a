"""Show the state of a sweep or of a run, from files alone, while it runs on any host.

Each point is waiting, running (on which host), stopped (the same command continues it), failed
(with the last line of its error) or finished (with its normalized entropy). MFU and input wait are
those since the last logged row; failures are the failed attempts that `ligr sweep --retries`
limits. The time left assumes as many processes as train now. A run of another host counts as
running while its files change; after five minutes without a change it is stopped.

exit status: 0 all points are finished; 1 a point failed; 85 points are not finished

examples:
  ligr status runs/ladder
  ligr status runs/ladder --watch
  ligr status runs/ladder --json
"""

import argparse
import shutil
import sys
import time
from pathlib import Path

from ligr_jax.commands.arguments import positive_float
from ligr_jax.exit_status import DONE, FAILED, PREEMPTED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, metavar="OUT", help="directory of a sweep, or of a run")
    parser.add_argument(
        "--watch",
        action="store_true",
        help="show the state again and again until no point is left to train",
    )
    parser.add_argument(
        "--every", type=positive_float, default=5.0, metavar="S", help="seconds (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the state as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the state; return DONE, FAILED or PREEMPTED."""
    from ligr_jax.commands.status_table import format_state
    from ligr_jax.runs.sweep_state import read_sweep_state
    from ligr_jax.strict_json import print_json

    is_terminal = sys.stdout.isatty() and not args.json
    shown = ""
    while True:
        sweep = read_sweep_state(args.out)
        if args.json:
            print_json(sweep.to_json())
        elif is_terminal:
            size = shutil.get_terminal_size()
            height = size.lines - 1 if args.watch else None
            table = format_state(sweep, size.columns, height, color=True)
            print(_in_place(table) if args.watch else table)
        elif (table := format_state(sweep)) != shown:  # a log gets only what has changed
            print(table)
            shown = table
        if not args.watch or sweep.is_over:
            break
        sys.stdout.flush()
        time.sleep(args.every)
    if sweep.counts["failed"]:
        return FAILED
    return DONE if sweep.is_over else PREEMPTED


def _in_place(table: str) -> str:
    """Return a text that replaces what the terminal shows."""
    return "\x1b[H" + table.replace("\n", "\x1b[K\n") + "\x1b[K\n\x1b[J"
