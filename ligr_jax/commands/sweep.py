"""Train every point of sweeps (files that W&B accepts), without a server.

The shapes of all points are checked and their cost is shown before the first one starts. The
directory of a point is named by the digest of its configuration: when the same command runs again,
finished points are skipped and interrupted ones continue, and a point of several sweeps is trained
once. Several runners may share one --out: no two train the same point, and a runner takes over what
a killed one left. A failing point does not stop the others; it is tried again --retries times in
all. Ctrl-C and other signals let the points that are being trained save; the exit status is then
85, and the same command continues.

On a machine with several accelerators, each of --jobs processes gets an equal part of them. A point
that does not fit into their memory is marked by --dry-run, and refused before anything starts.

examples:
  ligr sweep --list                                                      shipped sweeps
  ligr sweep tiny/depth --data data/world/prepared --out runs/depth --dry-run
  ligr sweep tiny/depth --data data/world/prepared --out runs/depth
  ligr sweep tiny/ladder tiny/seeds --data data/world/prepared --out runs/ladder
  ligr sweep --print tiny/ladder > my-sweep.yaml                         a file to edit
  ligr sweep my-sweep.yaml --data D --out runs/mine
  ligr sweep tiny/seeds --data D --out runs/seeds --together 4
  ligr sweep tiny/seeds --data D --out runs/seeds --only preset=demo-3 train.seed=1
  ligr sweep tiny/depth --data D --out runs/quick train.steps=100
  ligr report runs/ladder
"""

import argparse
import logging
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ligr_jax.commands.arguments import positive_int, whole_number

if TYPE_CHECKING:
    from ligr_jax.parallel.probe import Devices

_log = logging.getLogger(__name__)


class _List(argparse.Action):
    """Print the shipped sweeps and end."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from ligr_jax.scaling.shipped import shipped_sweeps

        for name, sweep in shipped_sweeps().items():
            points = math.prod(len(p.get("values", [0])) for p in sweep["parameters"].values())
            print(f"{name:20}{points:4} points  {sweep['description']}")
        parser.exit()


class _Print(argparse.Action):
    """Print the file of a shipped sweep and end."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: object, name: Any, option: object = None
    ) -> None:
        from ligr_jax.scaling.shipped import shipped_sweeps, sweep_text

        if name not in shipped_sweeps():
            parser.error(f"--print {name}: no shipped sweep has this name; see `ligr sweep --list`")
        print(sweep_text(name), end="")
        parser.exit()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="+", metavar="SWEEP", help="file, name of a shipped sweep, or name=value"
    )
    parser.add_argument("--list", action=_List, nargs=0, help="list the shipped sweeps and stop")
    parser.add_argument(
        "--print", action=_Print, metavar="NAME", help="print the file of a shipped sweep and stop"
    )
    parser.add_argument("--data", required=True, type=Path, help="prepared data (ligr prepare)")
    parser.add_argument("--out", required=True, type=Path, help="directory of the runs")
    parser.add_argument(
        "--jobs",
        type=whole_number(1, 1024),
        default=1,
        help="number of processes that train (default 1)",
    )
    parser.add_argument(
        "--together",
        type=positive_int,
        default=1,
        metavar="K",
        help="train up to K points that differ only in seed and rates as one program (default 1)",
    )
    parser.add_argument(
        "--retries",
        type=whole_number(0, 1000),
        default=1,
        metavar="N",
        help="how often a point that failed is tried again, over all runners and calls (default 1)",
    )
    parser.add_argument(
        "--compilation-cache",
        metavar="DIR",
        help="directory of compiled programs, or none (default JAX_COMPILATION_CACHE_DIR, else "
        "OUT/.compiled)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the points with their cost and stop"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="WORD",
        help="train only points that match every word: name=value, sweep or run",
    )


def run(args: argparse.Namespace) -> int:
    import jax

    # This process only estimates and waits; accelerators are for the processes that train. The
    # environment is not changed, because those processes inherit it.
    jax.config.update("jax_platforms", "cpu")

    from ligr_jax.config import ConfigError
    from ligr_jax.parallel.probe import Devices, probe
    from ligr_jax.runs.wandb_check import check_wandb
    from ligr_jax.scaling.runner import run_sweep
    from ligr_jax.scaling.sweep import (
        calibrate_seconds,
        format_points,
        input_line,
        plan_points,
        read_sweep,
        select_points,
    )

    extra = [word for word in args.files if "=" in word]
    files = [Path(word) for word in args.files if "=" not in word]
    if not files:
        raise ConfigError("name at least one sweep, e.g. tiny/depth; see `ligr sweep --list`")
    specs = [spec for file in files for spec in read_sweep(file)]

    def devices(dtype: str) -> Devices:
        return probe(dtype).of_one_job(args.jobs)

    points = select_points(plan_points(specs, args.data, extra, devices, args.out), args.only)
    points = calibrate_seconds(points, args.out)
    if args.dry_run:
        print(format_points(points))
        if points:
            print(input_line(points, args.data))
        return 0
    _log.info(format_points(points))
    for track in {point.config.track for point in points}:
        check_wandb(track)
    dtype = next((p.config.model.dtype for p in points), "float32")
    return run_sweep(
        points,
        args.data,
        args.out,
        args.jobs,
        args.together,
        retries=args.retries,
        environments=_environments(args, probe(dtype)),
    )


def _environments(args: argparse.Namespace, devices: "Devices") -> list[dict[str, str]]:
    """Return the environment variables of each job: its devices, and the compiled programs."""
    from ligr_jax.parallel.job_devices import devices_of_jobs
    from ligr_jax.runs.files import COMPILED

    cache = {}
    if args.compilation_cache == "none":
        cache = {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    elif args.compilation_cache or "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        # An absolute path: programs of other directories share the cache too.
        directory = Path(args.compilation_cache or args.out / COMPILED).resolve()
        cache = {"JAX_COMPILATION_CACHE_DIR": str(directory)}
    jobs = devices_of_jobs(devices.backend, devices.count, args.jobs, os.environ)
    return [cache | job for job in jobs]
