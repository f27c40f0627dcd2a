"""Write a trained run's predictions for every impression of a split to a Parquet file.

One row per impression: impression, member_id, item_id, timestamp_ms, session, and for every action
label_ACTION (null if unknown), logit_ACTION and probability_ACTION. Ids are those of the prepared
data, where a string is its xxh64 with seed 0. The file is written by row groups in bounded memory;
it is complete or absent. Metrics of the file equal those of `ligr eval`.

examples:
  ligr predict runs/first --out predictions.parquet
  ligr predict runs/first --split validation --out validation.parquet --step 500
  ligr predict runs/first --data /elsewhere/prepared --out predictions.parquet --overwrite
"""

import argparse
from pathlib import Path

from ligr_jax.commands.arguments import count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--out", metavar="FILE", required=True, type=Path, help="file to write")
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"))
    parser.add_argument(
        "--data",
        type=Path,
        help="prepared data, also other data of the same schema (default: those of the training)",
    )
    parser.add_argument("--batch", type=count, default=0, help="rows per batch")
    parser.add_argument("--step", type=count, help="step of the checkpoint (default: the newest)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")
    parser.add_argument(
        "assignments", nargs="*", metavar="mesh.name=value", help="e.g. mesh.model=4"
    )


def run(args: argparse.Namespace) -> int:
    from ligr_jax.parallel.host import use_all_cores
    from ligr_jax.parallel.peers import ending_together
    from ligr_jax.parallel.processes import is_first, join_processes

    use_all_cores()
    join_processes()
    from ligr_jax.store.mirror import with_uris
    from ligr_jax.strict_json import print_json
    from ligr_jax.train.prediction_file import write_predictions

    with ending_together():
        written = write_predictions(
            args.run,
            args.out,
            args.split,
            args.data,
            args.batch,
            args.assignments,
            args.step,
            args.overwrite,
        )
    if is_first() and args.json:
        print_json({"file": with_uris(str(args.out)), **written})
    elif is_first():
        print(
            f"{with_uris(str(args.out))}: predictions of step {written['step']:,} for "
            f"{written['rows']:,} impressions of the {args.split} split"
        )
    return 0
