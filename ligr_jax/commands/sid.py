"""Learn semantic ids: short tuples of codes for content vectors; similar items share a prefix.

SOURCE is prepared data whose items have vectors, or a Parquet file with `item_id` and a column of
vectors of one width. A vector of zeros means that an item has no content; it gets no ids.

examples:
  ligr sid vectors movies.csv --id movieId --tags genres --out items.parquet    from titles
  ligr sid train data/prepared --out sid/model                       RQ-VAE, 3 levels of 1,000 codes
  ligr sid train items.parquet --column embedding --out sid/model --levels 3 --codes 256
  ligr sid train data/prepared --out sid/kmeans --method rqkmeans    the baseline without a network
  ligr sid assign sid/model data/prepared --out sid/ids.parquet      item_id, c1, c2, c3
  ligr sid inspect sid/model data/prepared --out sid/page.html --titles movies.csv
  ligr sid attach sid/ids.parquet data/prepared --out data/with_sid  features sid1, sid2, sid3

An interrupted training continues when it is started again with the same arguments. New items get
ids from the frozen model: run `assign` with a source that contains them.
"""

import argparse
import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ligr_jax.commands.arguments import number, positive_int, whole_number
from ligr_jax.data.schema import BadInput
from ligr_jax.sid.config import CHOICES, SidConfig

_log = logging.getLogger(__name__)

HAS_PARTS = True
WHAT = {
    "method": "RQ-VAE, or residual k-means on the vectors",
    "levels": "number of codes of an item",
    "codes": "size of the codebook of each level",
    "seed": "seed of the model",
    "batch": "items per step",
    "steps": "steps [1000], or passes over the corpus per level with rqkmeans [20]",
    "latent": "width of the quantized vector",
    "hidden": "widths of the hidden layers of the encoder",
    "rate": "peak learning rate",
    "beta": "weight of the commitment loss",
    "gamma": "weight of the FLOPs regularizer, which balances the use of codes",
    "temperature": "temperature of the soft assignments of the regularizer",
    "quantization": "loss per level, or of the sum of the levels as LiGR writes it",
    "decay": "decay of the moving average of code use",
    "dead": "share of the mean use below which a code is replaced",
}


def _widths(text: str) -> tuple[int, ...]:
    return tuple(positive_int(part) for part in text.split(",") if part)


_PARSERS: dict[type, Callable[[str], Any]] = {
    int: whole_number(0, 2**63 - 1),
    float: number,
    str: str,
    tuple: _widths,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parts = parser.add_subparsers(
        dest="part", required=True, metavar="vectors|train|assign|inspect|attach"
    )
    train = parts.add_parser("train", help="learn codes from item vectors")
    train.add_argument("source", metavar="SOURCE", type=Path)
    train.add_argument("--out", metavar="DIR", type=Path, required=True, help="directory to write")
    train.add_argument("--column", default="content", help="column of vectors [%(default)s]")
    default = SidConfig()
    for field in dataclasses.fields(SidConfig):
        value = getattr(default, field.name)
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
        default_words = "" if field.name == "steps" else f" [{shown}]"
        train.add_argument(
            f"--{field.name}",
            type=_PARSERS[type(value)],
            default=0 if field.name == "steps" else value,
            choices=CHOICES.get(field.name),
            help=WHAT[field.name] + default_words,
        )
    vectors = parts.add_parser("vectors", help="make item vectors from titles and tags")
    vectors.add_argument("table", metavar="FILE", type=Path, help="CSV or Parquet")
    vectors.add_argument("--out", metavar="FILE.parquet", type=Path, required=True)
    vectors.add_argument(
        "--id", metavar="COL", default="item_id", help="column of ids [%(default)s]"
    )
    vectors.add_argument(
        "--title", metavar="COL", default="title", help="column of titles [%(default)s]"
    )
    vectors.add_argument("--tags", metavar="COL", help="column of tags: a|b|c, or lists")
    vectors.add_argument("--width", type=positive_int, default=64, help="of a vector [%(default)s]")
    assign = parts.add_parser("assign", help="write the codes of every item to a Parquet file")
    inspect = parts.add_parser("inspect", help="measure the codes and write a page of clusters")
    for part in (assign, inspect):
        part.add_argument("model", metavar="DIR", type=Path, help="output of `ligr sid train`")
        part.add_argument("source", metavar="SOURCE", type=Path)
    assign.add_argument("--out", metavar="FILE.parquet", type=Path, required=True)
    inspect.add_argument("--out", metavar="PAGE.html", type=Path)
    inspect.add_argument("--json", action="store_true", help="print the measures as JSON")
    inspect.add_argument(
        "--titles", metavar="FILE", type=Path, help="CSV or Parquet with columns to show"
    )
    inspect.add_argument(
        "--id", metavar="COL", default="item_id", help="column of its ids [%(default)s]"
    )
    attach = parts.add_parser("attach", help="add the ids to prepared data as features")
    attach.add_argument(
        "ids", metavar="FILE.parquet", type=Path, help="output of `ligr sid assign`"
    )
    attach.add_argument("prepared", metavar="PREPARED", type=Path, help="data of the same items")
    attach.add_argument("--out", metavar="NEW", type=Path, required=True)
    attach.add_argument(
        "--overwrite", action="store_true", help="replace NEW if it has other ids or data"
    )


def run(args: argparse.Namespace) -> int:
    from ligr_jax.parallel.host import use_all_cores

    use_all_cores()
    return PARTS[args.part](args)


def _vectors(args: argparse.Namespace) -> int:
    from ligr_jax.sid.text import write_title_vectors

    _keep(args.table, args.out)
    rows = write_title_vectors(args.table, args.out, args.id, args.title, args.tags, args.width)
    print(f"{args.out}: vectors of {rows:,} items")
    return 0


def _train(args: argparse.Namespace) -> int:
    from ligr_jax.sid.corpus import open_corpus
    from ligr_jax.sid.train import train_semantic_ids

    config = SidConfig(**{f.name: getattr(args, f.name) for f in dataclasses.fields(SidConfig)})
    corpus = open_corpus(args.source, args.column)
    _log.info(f"{args.source}: {len(corpus):,} items with vectors of {corpus.width} numbers")
    model = train_semantic_ids(config, corpus, args.column, args.out)
    print(f"{args.out}: model {model.digest}")
    return 0


def _assign(args: argparse.Namespace) -> int:
    from ligr_jax.sid.assign import assign
    from ligr_jax.sid.corpus import open_corpus
    from ligr_jax.sid.model import load_model

    _keep(args.source, args.out)
    model = load_model(args.model)
    corpus = open_corpus(args.source, model.column)
    rows = assign(model, corpus, args.out)
    without = len(corpus.ids) - rows
    print(f"{args.out}: ids of {rows:,} items by model {model.digest}")
    if without:
        _log.info(f"{without:,} items have no content and got no ids")
    return 0


def _keep(source: Path, out: Path) -> None:
    if out.resolve() == source.resolve():
        raise BadInput(f"--out {out} would replace its source; choose another file")


def _attach(args: argparse.Namespace) -> int:
    from ligr_jax.data.prepare.attach import attach_semantic_ids

    manifest = attach_semantic_ids(args.ids, args.prepared, args.out, args.overwrite)
    print(f"{args.out}  digest {manifest.digest}\n  note: {manifest.notes[-1]}")
    return 0


def _inspect(args: argparse.Namespace) -> int:
    from ligr_jax.sid.corpus import open_corpus
    from ligr_jax.sid.measure import measure_codes
    from ligr_jax.sid.model import load_model
    from ligr_jax.sid.page import read_item_texts, write_page
    from ligr_jax.strict_json import print_json

    model = load_model(args.model)
    corpus = open_corpus(args.source, model.column)
    ids = corpus.ids[corpus.rows]
    columns = read_item_texts(args.titles, args.id, ids) if args.titles else None
    found = measure_codes(model, corpus)
    if args.out:
        write_page(args.out, model, found, str(args.source), columns)
    if args.json:
        print_json(dataclasses.asdict(found.quality))
        return 0
    print("\n".join(found.quality.lines()))
    if args.out:
        print(f"page: {args.out}")
    return 0


PARTS = {
    "vectors": _vectors,
    "train": _train,
    "assign": _assign,
    "inspect": _inspect,
    "attach": _attach,
}
