"""Show the public data sets that `ligr prepare` reads: files, meaning of a row, where to get them.

A protocol is a name for splits, sessions, columns and filters of a data set: results on the same
protocol and digest are comparable (`ligr prepare DIR --out OUT --protocol NAME`).

examples:
  ligr sources
  ligr sources kuairand
  ligr sources --json
"""

import argparse
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from ligr_jax.data.protocols.registry import protocols_of
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.adapter import Adapter
from ligr_jax.data.sources.formats import ADAPTERS
from ligr_jax.strict_json import print_json

TEXTS = tuple(f.name for f in fields(Adapter) if f.type is str)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `ligr sources`."""
    parser.add_argument("names", metavar="NAME", nargs="*", help=", ".join(ADAPTERS))
    parser.add_argument("--json", action="store_true", help="print the descriptions as JSON")


def run(args: argparse.Namespace) -> None:
    """Print one line per data set, or the descriptions of the data sets that are named.

    Raises:
        BadInput: a name is not known.
    """
    for name in args.names:
        if name not in ADAPTERS:
            raise BadInput(f"ligr sources {name}: not known; the names are {', '.join(ADAPTERS)}")
    chosen = [ADAPTERS[name] for name in args.names or ADAPTERS]
    if args.json:
        print_json({a.name: _as_json(a) for a in chosen})
    elif args.names:
        print("\n\n".join(description(adapter) for adapter in chosen))
    else:
        width = max(map(len, ADAPTERS))
        for adapter in chosen:
            print(f"{adapter.name:{width}}  {adapter.title}")
        print("\n`ligr sources NAME` shows its files and where to get them")


def description(adapter: Adapter) -> str:
    """Return the description of a data set as text."""
    width = max(map(len, adapter.files))
    lines = [f"{adapter.name}: {adapter.title}", "  files"]
    lines += [f"    {name:{width}}  {text}" for name, text in adapter.files.items()]
    rest = {k: v for k, v in _texts(adapter).items() if k not in ("name", "title")}
    lines += [f"  {name:12}{text}" for name, text in rest.items()]
    if adapter.archives:
        lines.append(f"  {'download':12}ligr download {' | '.join(adapter.archives)} --out DIR")
    return "\n".join([*lines, *_protocol_lines(adapter)])


def _protocol_lines(adapter: Adapter) -> Iterator[str]:
    for protocol in protocols_of(adapter.name):
        yield f"  --protocol {protocol.name}: {protocol.summary}"
        rules = {k: v for k, v in protocol.describe().items() if k != "features"}
        for name, value in rules.items():
            text = "; ".join(value) if isinstance(value, list) else value
            yield f"    {name.replace('_', ' '):12}{text}"


def _as_json(adapter: Adapter) -> dict[str, Any]:
    protocols = {p.name: {"summary": p.summary, **p.describe()} for p in protocols_of(adapter.name)}
    return {
        **_texts(adapter),
        "files": dict(adapter.files),
        "archives": {name: archive.url for name, archive in adapter.archives.items()},
        "protocols": protocols,
    }


def _texts(adapter: Adapter) -> dict[str, str]:
    return {name: getattr(adapter, name) for name in TEXTS}
