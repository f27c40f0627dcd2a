"""Train one model on prepared data.

Everything is configured by dotted names; `--show` prints them all with their values and stops.
Started again with the same arguments, a run goes on where it was interrupted; a finished run is
left as it is. SIGTERM saves and exits with status 85 ("run me again").

examples:
  ligr train --data data/world/prepared --out runs/first
  ligr train --data data/world/prepared --out runs/deep model.depth=8 model.width=128 model.heads=4
  ligr train --data data/world/prepared --out runs/ids model.features=item_id,actor_id
  ligr train --data data/world/prepared --out runs/long --preset demo-7 train.seed=1
  ligr train --data data/world/prepared --show optim.batch=64
  ligr train --data data/world/prepared --plan mesh.data=2 mesh.model=4
  ligr train --data data/world/prepared --out runs/split mesh.model=8 mesh.placement=column
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, type=Path, help="prepared data (ligr prepare)")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, help="run directory, made if needed")
    where.add_argument("--runs", type=Path, help="its parent; it is named by its configuration")
    where.add_argument("--show", action="store_true", help="print the configuration and stop")
    where.add_argument("--plan", action="store_true", help="print where tables go, and stop")
    parser.add_argument("--preset", metavar="NAME", help="a named starting point, e.g. demo-4")
    parser.add_argument("assignments", nargs="*", metavar="name=value", help="e.g. model.depth=4")


def run(args: argparse.Namespace) -> int:
    from ligr_jax.parallel.host import use_all_cores
    from ligr_jax.parallel.processes import is_first, join_processes

    use_all_cores()
    join_processes()
    from ligr_jax.config import digest, flatten
    from ligr_jax.data.manifest import load_manifest
    from ligr_jax.scaling.ladder import configure

    preset = [f"preset={args.preset}"] if args.preset else []
    config = configure(load_manifest(args.data), args.data, [*preset, *args.assignments])
    if args.show:
        for name, value in flatten(config).items():
            shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
            print(f"{name}={shown}")
        return 0
    if args.plan:
        from ligr_jax.train.program import Program

        print("\n".join(Program(config).plan.lines()))
        return 0
    from ligr_jax.train.loop import train

    summary = train(config, args.out or args.runs / digest(config))
    for split in config.eval.splits if is_first() else ():
        if f"{split}/ne" in summary:
            print(f"{split}: NE {summary[f'{split}/ne']:.4f}  AUC {summary[f'{split}/auc']:.4f}")
    return 0
