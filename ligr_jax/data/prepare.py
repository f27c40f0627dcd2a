"""`ligr prepare`: a log of impressions becomes sorted member histories in memory-mapped shards.

Two passes, both in bounded memory. The first reads the log once, checks every row and cuts it into
partitions of members; the second sorts one partition at a time and writes it as a shard. The output
is a pure function of the input's bytes and the options.
"""

import argparse
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ligr_jax.data.build import Build, Progress
from ligr_jax.data.formats import FORMATS, open_source
from ligr_jax.data.manifest import Manifest, load_manifest, save_manifest
from ligr_jax.data.options import PrepareOptions, parse_duration, parse_fractions, parse_time
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources import Source
from ligr_jax.data.splits import SplitTimes
from ligr_jax.data.tabular import TableColumns, parse_map

EXAMPLES = """\
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
"""


def prepare(
    source: Source,
    out: str | Path,
    options: PrepareOptions | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Prepares `source` in directory `out` and returns the manifest.

    An output already made from the same source with the same options is returned as it is. A run
    that fails leaves no manifest, and an earlier output untouched.

    Raises:
        BadInput: a bad log or bad options, an output made otherwise (without `overwrite`), or a
            directory that cannot be written.
    """
    options, out, say = options or PrepareOptions(), Path(out), progress or (lambda _: None)
    made_by = json.loads(json.dumps({**source.description, "options": options.description()}))
    if (out / "manifest.json").is_file() and not options.overwrite:
        existing = load_manifest(out)
        _refuse_difference(existing, made_by, out)
        say(f"already prepared: {out}")
        return existing
    work = out / f".partial-{os.getpid()}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        for stale in out.glob(".partial-*"):
            shutil.rmtree(stale)
        work.mkdir()
        manifest = Build(source, options, work, say).run(made_by)
        _publish(manifest, work, out)
    except OSError as e:
        raise BadInput(
            f"cannot write {out}: {e.strerror or e}; make room or choose another --out (nothing "
            "was left behind that looks finished)"
        ) from e
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return manifest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `ligr prepare`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = "Turn a log of impressions into sorted, checked, memory-mapped histories."
    parser.epilog = EXAMPLES
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
        ("numeric", "number features"),
        ("vector", "content vectors"),
        ("outcome", "numbers known only after the impression, e.g. dwell time"),
    ):
        table.add_argument(f"--{name}", metavar="A,B", type=_names, default=(), help=text)
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
        numeric=args.numeric,
        vector=args.vector,
        outcome=args.outcome,
        items=args.items,
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


def _publish(manifest: Manifest, work: Path, out: Path) -> None:
    """Moves finished files into place; an old manifest goes first, the new one comes last."""
    (out / "manifest.json").unlink(missing_ok=True)
    for old in [*out.glob("members-*.arrow"), out / "items.arrow"]:
        old.unlink(missing_ok=True)
    for shard in [*manifest.shards, *([manifest.items] if manifest.items else [])]:
        os.replace(work / shard.file, out / shard.file)
    save_manifest(manifest, out)


def _refuse_difference(existing: Manifest, made_by: Mapping[str, Any], out: Path) -> None:
    differences = list(_differences(existing.source, made_by))
    differences += [f"{s.file} is gone" for s in existing.shards if not (out / s.file).is_file()]
    if differences:
        raise BadInput(
            f"{out} was prepared otherwise: {'; '.join(differences[:5])}. Choose another --out, or "
            "replace it with --overwrite"
        )


def _differences(there: Any, asked: Any, name: str = "") -> Iterator[str]:
    if isinstance(there, dict) and isinstance(asked, dict):
        for key in sorted({*there, *asked}):
            inner = f"{name}.{key}" if name else str(key)
            yield from _differences(there.get(key), asked.get(key), inner)
    elif there != asked:
        yield f"{name} is {json.dumps(there)[:120]} there, {json.dumps(asked)[:120]} asked"
