"""Check an artifact before it is served here: files, expiry, and the scores of golden requests.

DIR is the --out of `ligr export`. Every file is compared with its digest, and the golden requests
are scored again through the exported functions. On the platform, host type and versions of the
export, scores must be equal bit by bit; elsewhere they may differ by the tolerance of the manifest.
The exit status is 1 if a file is damaged, scores differ, or the promise of compatibility of
jax.export has ended.

With --data, a whole split is scored through the artifact as a service would: each member's history
is encoded, the impressions of each session are scored together as candidates, and the session is
appended. The metrics are those of `ligr eval`.

examples:
  ligr check exports/first
  ligr check exports/first --json
  ligr check exports/first --data data/world/prepared --split test
  ligr check exports/first --version 00000500-1f0a9c3b --make-current     back to an older version
"""

import argparse
from pathlib import Path
from typing import Any

from ligr_jax.commands.arguments import positive_int
from ligr_jax.exit_status import DONE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", type=Path, metavar="DIR", help="directory of the artifact")
    parser.add_argument("--version", default="", metavar="NAME", help="default: the current one")
    parser.add_argument(
        "--make-current",
        action="store_true",
        help="make the version the current one, if it passes the check",
    )
    parser.add_argument(
        "--allow-expired", action="store_true", help="score although the artifact has expired"
    )
    parser.add_argument("--data", type=Path, help="prepared data: measure a split as well")
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"))
    parser.add_argument(
        "--batch", type=positive_int, default=64, help="members scored together [64]"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    from ligr_jax.parallel.host import use_all_cores

    use_all_cores()
    from ligr_jax.commands.eval import metrics_table
    from ligr_jax.serve.artifact import load_artifact
    from ligr_jax.serve.golden_check import check_artifact
    from ligr_jax.store.mirror import with_uris
    from ligr_jax.strict_json import print_json
    from ligr_jax.tables.versions import make_current

    artifact = load_artifact(args.artifact, args.version, allow_expired=args.allow_expired)
    result = check_artifact(artifact)
    numbers: dict[str, Any] = {}
    if args.data:
        from ligr_jax.serve.replay import replay_metrics
        from ligr_jax.train.data import open_verified

        config = artifact.manifest.run_config
        records = open_verified(args.data, config.data.edges, config.data.digest)
        numbers = replay_metrics(artifact, records, config, args.split, args.batch)
    if args.make_current:
        make_current(args.artifact, artifact.directory.name)
    if args.json:
        print_json({**result._asdict(), "metrics": numbers})
        return DONE
    print(with_uris(f"{artifact.directory}: ok"))
    print(result.words())
    if numbers:
        print(metrics_table(numbers, args.split))
    return DONE
