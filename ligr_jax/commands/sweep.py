"""Train every point of a sweep file (a valid W&B sweep), without a server.

A point's directory is named by the digest of its configuration: run again, a sweep skips what is
finished and goes on with what is not. Several runners may share one --out; none trains a point that
another holds. A point that fails does not stop the others.

examples:
  ligr sweep sweeps/demo.yaml --data data/world/prepared --out runs/demo --dry-run
  ligr sweep sweeps/demo.yaml --data data/world/prepared --out runs/demo
  ligr sweep sweeps/demo.yaml --data data/world/prepared --out runs/demo --jobs 2 train.seed=1
  ligr report runs/demo
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="sweep file, e.g. sweeps/demo.yaml")
    parser.add_argument("--data", required=True, type=Path, help="prepared data (ligr prepare)")
    parser.add_argument("--out", required=True, type=Path, help="directory of the runs")
    parser.add_argument("--jobs", type=int, default=1, help="points trained at a time (default 1)")
    parser.add_argument("--dry-run", action="store_true", help="print the points and stop")
    parser.add_argument("assignments", nargs="*", metavar="name=value", help="for every point")


def run(args: argparse.Namespace) -> int:
    from ligr_jax.scaling.sweep import plan_points, read_sweep, run_sweep, table_of

    _, grid = read_sweep(args.file)
    points = plan_points(grid, args.data, args.assignments)
    print(table_of(points), flush=True)
    if args.dry_run:
        return 0
    return 0 if run_sweep(points, args.data, args.out, args.jobs, print) else 1
