"""Write the embedding tables of a trained run for serving.

The tables of the newest checkpoint are written as sharded zarr3 arrays with checksums, from which
single rows can be read without loading a table. 8 and 4 bits are row-wise middle-max codes with a
scale and a middle value per row (LiRank 3.13). DIR/index.json lists the tables and is written last:
a directory without it was interrupted, and the same command writes it again.

examples:
  ligr export runs/first --out exports/first                    float32
  ligr export runs/first --out exports/first-int8 --bits 8
  ligr export runs/first --out exports/first --bits 4 --overwrite
  ligr export runs/first --out exports/first --data /elsewhere/prepared

reading rows:
  from ligr_jax.tables.exported import ExportedTable
  ExportedTable.open("exports/first", "item_id").rows([3, 14159])      float32 [2, E]
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ligr_jax.commands.arguments import count, whole_number

if TYPE_CHECKING:
    from ligr_jax.tables.layout import Layout
    from ligr_jax.tables.pieces import Source
    from ligr_jax.train.state import TrainState


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--out", metavar="DIR", required=True, type=Path, help="directory to write")
    parser.add_argument(
        "--bits", type=whole_number(4, 32), default=32, choices=(32, 8, 4), help="of a value [32]"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a finished export")
    parser.add_argument(
        "--data", type=Path, help="prepared data (default: the directory of the training)"
    )
    parser.add_argument("--step", type=count, help="step of the checkpoint (default: the newest)")
    parser.add_argument(
        "assignments", nargs="*", metavar="mesh.name=value", help="e.g. mesh.model=4"
    )


def run(args: argparse.Namespace) -> int:
    from ligr_jax.parallel.host import use_all_cores

    use_all_cores()
    from ligr_jax.config import digest
    from ligr_jax.parallel.processes import require_common
    from ligr_jax.runs.directory import load_config
    from ligr_jax.store.mirror import with_uris
    from ligr_jax.tables.export import export
    from ligr_jax.tables.zarr import require_free
    from ligr_jax.train.evaluate import restore

    config = load_config(args.run)
    require_common(args.out)
    require_free(args.out, args.overwrite)  # refused before the checkpoint is read
    evaluator, state = restore(args.run, args.data, assignments=args.assignments, step=args.step)
    about = {
        "directory": with_uris(str(args.run)),
        "digest": digest(config),
        "step": int(state.step),
    }
    sources = tables(evaluator.layout, state)
    index = export(sources, args.out, args.bits, about, args.overwrite)
    out = with_uris(str(args.out))
    print(f"{out}: tables of step {about['step']:,} in {args.bits} bits\n{_table(index)}")
    return 0


def tables(layout: "Layout", state: "TrainState") -> Iterator["Source"]:
    """Yield every table of a run without its padding rows."""
    from ligr_jax.tables.pieces import Source
    from ligr_jax.train.optimizer import split_tables

    arrays = split_tables(state.params)[1]
    for name, span in layout.spans.items():
        array = arrays[span.stored]
        if layout.arrays[span.stored].placement == "table_wise":
            array = array[span.first : span.first + span.rows]
        yield Source(name, array, span.rows, span.width)


def _table(index: dict[str, Any]) -> str:
    columns = ("rows", "width", "bytes before", "bytes after", "saved", "RMSE")
    lines = [f"{'table':20}" + "".join(f"{c:>14}" for c in columns)]
    for name, about in index["tables"].items():
        before, after = 4 * about["rows"] * about["width"], about["bytes"]
        lines.append(
            f"{name:20}{about['rows']:14,}{about['width']:14,}{before:14,}{after:14,}"
            f"{1 - after / before:14.1%}{about['rmse']:14.3g}"
        )
    return "\n".join(lines)
