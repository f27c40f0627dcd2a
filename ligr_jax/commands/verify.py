"""Compare files with the digests that were written with them; no file is changed.

PATH is prepared data, a run, the directory of a sweep, an artifact, a model of semantic ids, or an
activity store. The output is one line per file or directory; the exit status is 1 if something is
damaged or missing. `ligr train`, `eval` and `sweep` verify their prepared data when they start.

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
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="file or directory to verify"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the result for every path; return FAILED if something is damaged."""
    from ligr_jax.scaling.verify import CheckResult, verify
    from ligr_jax.store.mirror import with_uris
    from ligr_jax.strict_json import print_json

    checked = []
    for path in args.paths:
        try:
            for each in verify(path):
                checked.append(each)
                if not args.json:
                    state = "DAMAGED" if each.problem else "ok"
                    words = each.problem or each.note
                    line = f"{state:8}{each.kind:14}{each.path}{': ' if words else ''}{words}"
                    print(with_uris(line))
        except (LigrError, OSError) as e:  # the other paths are still verified
            checked.append(CheckResult(str(path), "path", str(e)))
            _log.error(f"ligr verify: {e}")
    if args.json:
        shown = ({k: with_uris(v) for k, v in c._asdict().items()} for c in checked)
        print_json([{"ok": not c.problem, **values} for c, values in zip(checked, shown)])
    return FAILED if any(c.problem for c in checked) else DONE
