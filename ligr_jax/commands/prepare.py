"""Turn a log of impressions into sorted, checked, memory-mapped histories.

what SOURCE can be:
  a canonical log         Parquet or CSV files beside a log.json, e.g. from `ligr world`
  KuaiRand                log_standard*.csv or .parquet, video_features_basic*, user_features*
  MovieLens               ratings.csv and movies.csv, or ratings.dat and movies.dat
  any table               one Parquet or CSV file, or a directory of them, with --actions

examples:
  ligr prepare log/ --out prepared/
  ligr prepare KuaiRand-Pure/data --out kuairand/ --session-gap 6h \\
      --train-until 2022-05-05T00:00+08:00 --validation-until 2022-05-06T00:00+08:00
  ligr prepare ml-latest-small --out movielens/ --fractions 0.9,0.05,0.05
  ligr prepare events.csv --out events/ --map member_id=user item_id=post timestamp_ms=ts \\
      --actions click,like --categorical surface,topic --numeric age --outcome dwell
  ligr prepare events.csv --out events/ --actions click --bag tags,topics --separator ';'
"""

import argparse
from pathlib import Path

from ligr_jax.data.manifest import Manifest
from ligr_jax.data.prepare.options import (
    PrepareOptions,
    parse_duration,
    parse_fractions,
    parse_time,
)
from ligr_jax.data.prepare.prepare import prepare
from ligr_jax.data.prepare.splits import SplitTimes
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.formats import FORMATS, open_source
from ligr_jax.data.sources.tabular import TableColumns, parse_map


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `ligr prepare`."""
    add = parser.add_argument
    add("source", metavar="SOURCE", type=Path, help="directory or file of the log")
    add("--out", metavar="DIR", type=Path, required=True, help="directory to write")
    add("--format", choices=("auto", *FORMATS), default="auto", help="what SOURCE is")
    add("--session-gap", metavar="TIME", default="30m", help="pause that ends a session: 30m, 6h")
    splits = parser.add_argument_group("splits, by time (ISO dates, UTC without a zone, or ms)")
    splits.add_argument("--train-until", metavar="T")
    splits.add_argument("--validation-until", metavar="T")
    splits.add_argument("--test-until", metavar="T", help="later rows are dropped")
    splits.add_argument("--fractions", metavar="F,F,F", help="or shares of rows [0.8,0.1,0.1]")
    table = parser.add_argument_group("columns, for tables")
    table.add_argument(
        "--map", metavar="OURS=THEIRS", nargs="+", action="extend", default=[], help="rename"
    )
    for name, text in (
        ("actions", "label columns, 0 or 1"),
        ("categorical", "integer or string features (item_id always is one)"),
        ("bag", "features of several ids: lists, or text with --separator between ids"),
        ("numeric", "number features"),
        ("vector", "content vectors"),
        ("outcome", "numbers known only after the impression, e.g. dwell time"),
    ):
        table.add_argument(f"--{name}", metavar="A,B", type=_names, default=(), help=text)
    table.add_argument(
        "--separator", metavar="S", default="|", help="of bags as text [%(default)s]"
    )
    table.add_argument("--items", metavar="FILE", type=Path, help="item table, by item_id")
    add("--on-bad-row", choices=("error", "skip"), default="error", help="skip: drop and count")
    add("--shard-rows", metavar="N", type=int, default=2_000_000, help="rows held in memory")
    add("--overwrite", action="store_true", help="replace an output that was made otherwise")


def run(args: argparse.Namespace) -> None:
    """Runs `ligr prepare` and prints what was made; raises `BadInput` for bad input."""
    columns = TableColumns(
        names=parse_map(args.map),
        actions=args.actions,
        categorical=args.categorical,
        bag=args.bag,
        numeric=args.numeric,
        vector=args.vector,
        outcome=args.outcome,
        items=args.items,
        separator=args.separator,
    )
    options = PrepareOptions(
        session_gap_ms=parse_duration(args.session_gap),
        splits=_split_times(args),
        fractions=parse_fractions(args.fractions or "0.8,0.1,0.1"),
        on_bad_row=args.on_bad_row,
        shard_rows=args.shard_rows,
        overwrite=args.overwrite,
    )
    source = open_source(args.source, args.format, columns)
    if args.source.resolve() == args.out.resolve():
        raise BadInput(f"--out {args.out} is the source itself; choose another directory")
    print(f"{source.name}: about {source.rows:,} rows")
    print(summary(prepare(source, args.out, options, print), args.out))


def summary(manifest: Manifest, out: Path) -> str:
    """What a reader should know of a prepared data set, on a few lines."""
    counted = ", ".join(f"{v:,} {k.replace('_', ' ')}" for k, v in manifest.counts.items() if v)
    lines = [f"{out}  digest {manifest.digest}", f"  {counted}"]
    for name, split in manifest.splits.items():
        rates = "  ".join(f"{a} {rate:.4f}" for a, rate in split.positive_rate.items())
        lines.append(f"  {name:<11}{split.impressions:>12,} impressions  {rates}")
    for name, column in manifest.columns.items():
        if column.kind == "bag":
            lines.append(f"  {name:<11}up to {column.longest} of {column.distinct:,} ids in a bag")
    lines += [f"  note: {note}" for note in manifest.notes]
    return "\n".join(lines)


def _split_times(args: argparse.Namespace) -> SplitTimes | None:
    given = [args.train_until, args.validation_until, args.test_until]
    if given == [None] * 3:
        return None
    if args.fractions or args.train_until is None or args.validation_until is None:
        raise BadInput(
            "give both --train-until and --validation-until (equal times leave validation empty), "
            "or --fractions, not a mix of them"
        )
    times = [None if t is None else parse_time(t) for t in given]
    assert times[0] is not None
    assert times[1] is not None
    return SplitTimes(times[0], times[1], times[2])


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
