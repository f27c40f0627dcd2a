"""Check files against the digests that were written with them; nothing is changed.

PATH is prepared data, a run, a sweep's directory of runs, exported tables, or a model of semantic
ids. Prints one line for each thing that was checked, and exits with status 1 where something is
damaged or missing. `ligr train`, `eval` and `sweep` check prepared data themselves when they start.

examples:
  ligr verify data/world/prepared
  ligr verify runs/first exports/first
  ligr verify runs/demo --json
"""

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="what to check")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print what was checked; 1 where something is damaged."""
    from ligr_jax.scaling.verify import verify

    checked = []
    for path in args.paths:
        for each in verify(path):
            checked.append(each)
            if not args.json:
                state = "DAMAGED" if each.problem else "ok"
                words = each.problem or each.note
                print(f"{state:8}{each.kind:14}{each.path}{': ' if words else ''}{words}")
    if args.json:
        print(json.dumps([{"ok": not c.problem, **c._asdict()} for c in checked], indent=1))
    return 1 if any(c.problem for c in checked) else 0
