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
import logging
from pathlib import Path

from ligr_jax.errors import LigrError
from ligr_jax.exit_status import DONE, FAILED

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="what to check")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print what was checked; 1 where something is damaged."""
    from ligr_jax.scaling.verify import Checked, verify
    from ligr_jax.strict_json import print_json

    checked = []
    for path in args.paths:
        try:
            for each in verify(path):
                checked.append(each)
                if not args.json:
                    state = "DAMAGED" if each.problem else "ok"
                    words = each.problem or each.note
                    print(f"{state:8}{each.kind:14}{each.path}{': ' if words else ''}{words}")
        except (LigrError, OSError) as e:  # the other paths are checked all the same
            checked.append(Checked(str(path), "path", str(e)))
            _log.error(f"ligr verify: {e}")
    if args.json:
        print_json([{"ok": not c.problem, **c._asdict()} for c in checked])
    return FAILED if any(c.problem for c in checked) else DONE
