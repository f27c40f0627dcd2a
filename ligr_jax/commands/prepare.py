"""Convert a log of impressions to sorted, validated, memory-mapped member histories.

forms of SOURCE:
  a canonical log         Parquet or CSV files and a log.json, e.g. of `ligr world`
  a public data set       KuaiRand, MovieLens, ...: `ligr sources` shows their layouts
  any table               one Parquet, Arrow, Feather, Avro, JSON lines, CSV or TSV file, or a
                          directory of them (partitioned too), text compressed or not, with
                          --actions or --label

examples:
  ligr prepare log/ --out prepared/
  ligr prepare KuaiRand-Pure/data --out kuairand/ --session-gap 6h \\
      --train-until 2022-05-05T00:00+08:00 --validation-until 2022-05-06T00:00+08:00
  ligr prepare ml-latest-small --out movielens/ --fractions 0.9,0.05,0.05
  ligr prepare KuaiRand-27K/data --out kuairand/ --protocol kuairand-27k-time
  ligr prepare events.csv.gz --out events/ --map member_id=user item_id=post timestamp_ms=ts \\
      --actions click,like --categorical surface,topic --numeric age --outcome dwell
  ligr prepare events.csv --out events/ --actions click --bag tags,topics --separator ';'
  ligr prepare events.csv --out events/ --label 'click=value>0' --label 'like=rating>=4'
  ligr prepare ratings.dat --out ratings/ --delimiter :: --label 'like=rating>=4' \\
      --column-names member_id,item_id,rating,timestamp_ms
  ligr prepare events.csv --out events/ --actions click --time-format '%d/%m/%Y %H:%M' \\
      --time-zone Europe/Berlin --null-values NA,-
  ligr prepare pages.parquet --out pages/ --explode shown --map item_id=shown \\
      --label 'click=clicked contains item_id'
  ligr prepare behaviors.tsv --out mind/ --actions click --time-format '%m/%d/%Y %I:%M:%S %p' \\
      --column-names page,member_id,timestamp_ms,history,shown --separator ' ' --bag history \\
      --explode 'shown={item_id}-{click}'
  ligr prepare shown/ --out prepared/ --actions click --labels clicks.parquet \\
      --labels-on request_id,item_id
  ligr prepare log/ --out prepared/ --engine spark --master spark://host:7077
  ligr prepare db.impressions --out prepared/ --engine spark --spark-format table --actions click

The unit of the time column is inferred from the whole column (seconds to nanoseconds since 1970,
ISO times, Parquet timestamps). The summary lists the role that each column was given; --json prints
it as JSON. A name with a comma is quoted as in CSV: --categorical '"a,b",c'.
"""

import argparse
import csv
import logging
from pathlib import Path
from typing import Any

from ligr_jax.commands.arguments import positive_int
from ligr_jax.commands.prepare_options import add_rules, prepare_options
from ligr_jax.data.manifest import Manifest
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions, parse_time
from ligr_jax.data.prepare.spark import prepare_on_spark
from ligr_jax.data.prepare.spark_session import start_session
from ligr_jax.data.prepare.splits import EmptySplit
from ligr_jax.data.prepare.summary import format_summary, load_log_summary
from ligr_jax.data.protocols.protocol import Protocol
from ligr_jax.data.protocols.registry import (
    find_protocol,
    has_published_digest,
    protocol_line,
)
from ligr_jax.data.schema import BAG_SEPARATOR, WEIGHT, BadInput
from ligr_jax.data.sources.formats import FORMATS, open_source
from ligr_jax.data.sources.label_rules import parse_label
from ligr_jax.data.sources.list_columns import parse_explode
from ligr_jax.data.sources.source import LogSource
from ligr_jax.data.sources.spark_table import spark_table
from ligr_jax.data.sources.table_columns import TableColumns, parse_map
from ligr_jax.data.sources.text_options import TextOptions, parse_delimiter
from ligr_jax.data.sources.times import PER_MS, TimeOptions
from ligr_jax.store.mirror import with_uris
from ligr_jax.store.stage import stage_place
from ligr_jax.strict_json import print_json

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `ligr prepare`."""
    add = parser.add_argument
    add("source", metavar="SOURCE", help="directory or file of the log")
    add("--out", metavar="DIR", type=Path, required=True, help="directory to write")
    add("--format", choices=("auto", *FORMATS), default="auto", help="format of SOURCE")
    add_rules(parser)
    _add_columns(parser.add_argument_group("columns, for tables (options may be repeated)"))
    _add_reading(parser.add_argument_group("times and cells, for tables"))
    add(
        "--on-bad-row",
        choices=("error", "skip"),
        default="error",
        help="skip: drop and count bad rows",
    )
    add(
        "--shard-rows",
        metavar="N",
        type=positive_int,
        default=2_000_000,
        help="rows of a shard, and rows in memory per thread [%(default)s]",
    )
    add("--workers", metavar="N", type=positive_int, help="threads [cores, at most 4]")
    _add_engine(parser.add_argument_group("engine (Spark: pip install 'ligr-jax[spark]', Java 17)"))
    add(
        "--overwrite", action="store_true", help="replace an output of other options or another log"
    )
    add("--json", action="store_true", help="print the summary as JSON")


def _add_columns(table: argparse._ArgumentGroup) -> None:
    table.add_argument(
        "--map",
        metavar="OURS=THEIRS",
        nargs="+",
        action="extend",
        default=[],
        help="rename columns",
    )
    for name, text in (
        ("actions", "label columns, 0 or 1"),
        ("late", "actions known at an unknown later time, e.g. buy: targets, never history"),
        ("categorical", "integer or string features (item_id always is one; member_id may be)"),
        ("bag", "features of several ids: lists, or text with --separator between ids"),
        ("numeric", "number features"),
        ("vector", "content vectors"),
        ("outcome", "numbers that are known only after the impression, e.g. dwell time"),
        ("ignore", "columns to leave out, e.g. a session_id with another meaning"),
    ):
        table.add_argument(
            f"--{name}", metavar="A,B", type=_names, action="extend", default=[], help=text
        )
    table.add_argument(
        "--label",
        metavar="RULE",
        type=str,
        action="append",
        default=[],
        help="action by a rule: click=value>0, like=rating>=4, buy=event==pay, x=value in a|b, "
        "click=clicked_at is not null, click=clicked_items contains item_id",
    )
    table.add_argument(
        "--explode",
        metavar="COL",
        type=_names,
        action="extend",
        default=[],
        help="columns with lists of shown items (or --separator text, or lists of objects): one "
        "row per item; 'shown={item_id}-{click}' also splits each element into columns",
    )
    table.add_argument(
        "--weight", metavar="COL", help="column of weights in the loss; 0 is history only [none]"
    )
    table.add_argument(
        "--separator",
        metavar="S",
        default=BAG_SEPARATOR,
        help="separator of lists as text [%(default)s]",
    )
    table.add_argument(
        "--items", metavar="FILE", type=Path, help="table of items, with a column item_id"
    )
    table.add_argument(
        "--labels", metavar="FILE", type=Path, help="table of label columns (--actions)"
    )
    table.add_argument(
        "--labels-on",
        metavar="A,B",
        type=_names,
        action="extend",
        default=[],
        help="columns of both tables that identify an impression; one without a row has label 0",
    )


def _add_reading(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--time-unit", choices=tuple(PER_MS), default="", help="unit of the time column")
    add("--time-origin", metavar="T", help="start of the count, if not 1970 (with --time-unit)")
    add("--time-format", metavar="F", default="", help="strptime format, e.g. %%Y%%m%%d")
    add(
        "--no-times",
        action="store_true",
        help="there is no time column; the rows of a member are in order",
    )
    add("--time-zone", metavar="ZONE", default="", help="time zone of times without one [UTC]")
    add(
        "--delimiter",
        metavar="C",
        default="",
        type=parse_delimiter,
        help="tab, ';', '::', ... [inferred]",
    )
    add("--no-header", action="store_true", help="the first line has values: columns 1, 2, ...")
    add(
        "--column-names",
        metavar="A,B",
        type=_names,
        action="extend",
        default=[],
        help="names of all columns of text files without a header",
    )
    add("--no-quotes", action="store_true", help="a quote in text files is an ordinary character")
    add("--encoding", metavar="E", default="utf-8", help="encoding of text files [%(default)s]")
    add(
        "--null-values",
        metavar="A,B",
        type=_names,
        action="extend",
        default=[],
        help="words that mean a missing value, in addition to the empty cell",
    )


def _add_engine(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--engine", choices=("local", "spark"), default="local", help="[%(default)s]")
    add("--master", metavar="URL", default="", help="Spark: cluster, e.g. local[4] or yarn")
    add(
        "--spark-conf",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="Spark: a setting, e.g. spark.jars.packages=...",
    )
    add(
        "--spark-format",
        metavar="F",
        default="",
        help="Spark reads SOURCE: iceberg, delta, orc, ..., or table for a name in the catalog",
    )


def run(args: argparse.Namespace) -> None:
    """Prepare a log and print the summary.

    Raises:
        BadInput: the log or the options are invalid.
    """
    protocol = find_protocol(args.protocol) if args.protocol else None
    options = prepare_options(args, protocol)
    if Path(args.source).resolve() == args.out.resolve():
        raise BadInput(f"--out {args.out} is the source; choose another directory")
    try:
        manifest = ENGINES[args.engine](args, options, protocol)
    except EmptySplit as e:
        if protocol is None:
            raise
        problem = str(e).partition(";")[0]
        raise BadInput(
            f"--protocol {protocol.name} does not fit this log: {problem}; give the complete data "
            f"(`ligr sources {protocol.adapter}`), or split times of your own without --protocol"
        ) from e
    summary = load_log_summary(args.out)
    if args.json:
        said: dict[str, Any] = {"directory": with_uris(str(args.out)), "digest": manifest.digest}
        if protocol:
            said |= {"protocol": protocol.name, "protocol_version": protocol.version}
            said["published"] = has_published_digest(manifest)
        print_json({**said, **summary})
    else:
        print(with_uris(format_summary(manifest, summary, args.out)))
        if protocol:
            print(protocol_line(manifest))


def _prepare_here(
    args: argparse.Namespace, options: PrepareOptions, protocol: Protocol | None
) -> Manifest:
    if args.master or args.spark_conf or args.spark_format:
        raise BadInput("--master, --spark-conf and --spark-format are for Spark: --engine spark")
    return prepare(_opened(args, protocol), args.out, options)


def _prepare_on_spark(
    args: argparse.Namespace, options: PrepareOptions, protocol: Protocol | None
) -> Manifest:
    pairs = [text.partition("=") for text in args.spark_conf]
    for name, _, value in pairs:
        if not (name and value):
            raise BadInput(f"--spark-conf {name}: write NAME=VALUE")
    spark = start_session(args.master, {name: value for name, _, value in pairs})
    if not args.spark_format:
        return prepare_on_spark(_opened(args, protocol), args.out, options, spark)
    if protocol:
        raise BadInput(
            f"--protocol {protocol.name} reads the published files, not --spark-format "
            f"{args.spark_format}; leave out one of the two"
        )
    staged = args.out.resolve().with_name(f"{args.out.resolve().name}.staged")
    with spark_table(spark, args.spark_format, args.source, _columns(args), staged) as source:
        return prepare_on_spark(source, args.out, options, spark)


ENGINES = {"local": _prepare_here, "spark": _prepare_on_spark}


def _opened(args: argparse.Namespace, protocol: Protocol | None) -> LogSource:
    for path in (args.source, args.items, args.labels):
        if path is not None:
            stage_place(Path(path))
    format = protocol.adapter if protocol else args.format
    source = open_source(args.source, format, _columns(args))
    if protocol:
        source = protocol.apply(source)
    _log.info(f"{source.name}: about {source.rows:,} rows")
    return source


def _columns(args: argparse.Namespace) -> TableColumns:
    names = parse_map(args.map)
    weight = names.pop(WEIGHT, "")
    if args.weight and weight not in ("", args.weight):
        raise BadInput(f"--weight {args.weight} and --map {WEIGHT}={weight}: give one of them")
    origin = parse_time(args.time_origin) if args.time_origin else 0
    return TableColumns(
        names=names,
        actions=tuple(args.actions),
        late=tuple(args.late),
        categorical=tuple(args.categorical),
        bag=tuple(args.bag),
        numeric=tuple(args.numeric),
        vector=tuple(args.vector),
        outcome=tuple(args.outcome),
        weight=args.weight or weight,
        items=args.items,
        separator=args.separator,
        ignore=tuple(args.ignore),
        labels=tuple(parse_label(text) for text in args.label),
        label_table=args.labels,
        labels_on=tuple(args.labels_on),
        explode=tuple(parse_explode(text) for text in args.explode),
        time=TimeOptions(
            unit=args.time_unit,
            format=args.time_format,
            zone=args.time_zone,
            origin_ms=origin,
            absent=args.no_times,
        ),
        reading=TextOptions(
            delimiter=args.delimiter,
            encoding=args.encoding,
            null_values=tuple(args.null_values),
            names=tuple(args.column_names),
            no_header=args.no_header,
            no_quotes=args.no_quotes,
        ),
    )


def _names(text: str) -> list[str]:
    """Parse names separated by commas; a name that contains a comma is quoted as in CSV."""
    row = next(csv.reader([text], skipinitialspace=True), [])
    return [name.strip() for name in row if name.strip()]
