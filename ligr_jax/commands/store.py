"""Build and compact activity stores, from which serving reads the newest impressions of members.

A store is a directory with one SQLite file. `build` copies prepared data, so that the histories of
serving are those of training; the service appends what happens later. `compact` drops old
impressions while the store is in use.

examples:
  ligr store build data/prepared --out stores/feed                     all impressions
  ligr store build data/prepared --out stores/feed --split validation  what precedes the test split
  ligr store build data/prepared --out stores/feed --until 2026-11-01 --newest 4096
  ligr store compact stores/feed --newest 2048
  ligr store compact stores/feed --before 2026-08-01

reading and appending:
  from ligr_jax.serve import ActivityStore
  store = ActivityStore("stores/feed")
  store.append([{"member_id": 7, "timestamp_ms": 1790000000000, "item_id": 5, "click": 1}])
  store.batch([7, 12], config.model, newest=512)                       a Batch, one row per member

A build that is interrupted leaves no store; start it again. A store that was built with the same
arguments is kept, with everything that was appended to it.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ligr_jax.commands.arguments import positive_int

if TYPE_CHECKING:
    from ligr_jax.serve.activity import ActivityStore

HAS_PARTS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parts = parser.add_subparsers(dest="part", required=True, metavar="build|compact")
    build = parts.add_parser("build", help="copy prepared data to a new store")
    build.add_argument("prepared", metavar="PREPARED", type=Path, help="output of `ligr prepare`")
    build.add_argument("--out", metavar="DIR", type=Path, required=True, help="directory to write")
    end = build.add_mutually_exclusive_group()
    end.add_argument(
        "--until",
        metavar="TIME",
        help="copy impressions before this time: an ISO date, or milliseconds since 1970 [all]",
    )
    end.add_argument(
        "--split",
        choices=("train", "validation", "test"),
        help="copy impressions up to the end of this split",
    )
    build.add_argument(
        "--newest", metavar="N", type=positive_int, help="copy at most N impressions per member"
    )
    build.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a store that was built with other arguments; what was appended to it is lost",
    )
    compact = parts.add_parser("compact", help="drop old impressions, and shrink the file")
    compact.add_argument("store", metavar="DIR", type=Path, help="output of `ligr store build`")
    compact.add_argument(
        "--newest", metavar="N", type=positive_int, help="keep at most N impressions per member"
    )
    compact.add_argument(
        "--before", metavar="TIME", help="drop impressions before this time, given as for --until"
    )


def run(args: argparse.Namespace) -> int:
    return PARTS[args.part](args)


def _build(args: argparse.Namespace) -> int:
    from ligr_jax.data.manifest import load_manifest
    from ligr_jax.data.prepare.options import parse_time
    from ligr_jax.serve.activity import ActivityStore
    from ligr_jax.serve.activity_build import build_store

    until_ms = None if args.until is None else parse_time(args.until)
    if args.split:
        until_ms = load_manifest(args.prepared).splits[args.split].end_ms
    about = build_store(args.prepared, args.out, until_ms, args.newest, args.overwrite)
    with ActivityStore(args.out) as store:
        print(_line(store), f" from data with digest {about.data_digest}", sep="")
    if about.sessions == "session_id":
        print("sessions are those of the log: appended impressions need a session_id")
    return 0


def _compact(args: argparse.Namespace) -> int:
    from ligr_jax.data.prepare.options import parse_time
    from ligr_jax.serve.activity import ActivityStore

    with ActivityStore(args.store) as store:
        dropped = store.compact(
            args.newest, None if args.before is None else parse_time(args.before)
        )
        print(f"{_line(store)}; {dropped:,} were dropped")
    return 0


def _line(store: "ActivityStore") -> str:
    members, impressions = store.size()
    return f"{store.directory}: {impressions:,} impressions of {members:,} members"


PARTS = {"build": _build, "compact": _compact}
