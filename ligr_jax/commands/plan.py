"""Plan the next run for a compute budget from finished runs: sizes, data, learning rates, cost.

If the runs have several shapes at each of several budgets, the planned sizes are the best ones for
the budget (iso-FLOP); otherwise sizes grow as along the frontier of the best runs. The output is
the plan and the `ligr train` command for it.

examples:
  ligr plan --runs runs/ladder --flops 1e14
  ligr plan --runs runs/ladder runs/isoflop --flops 1e18 --device h200 --devices 8 --serve-ms 10
  ligr plan --runs runs/ladder --flops 1e14 --axis flops_paper --json > plan.json
  ligr plan --runs others.csv --flops 1e20 --loss logloss --axis flops
"""

import argparse
import logging
from pathlib import Path

from ligr_jax.commands.arguments import (
    add_metric,
    count,
    direction_of,
    positive_float,
    positive_int,
    share,
)
from ligr_jax.runs.table import read_runs
from ligr_jax.strict_json import print_json

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runs",
        nargs="+",
        required=True,
        type=Path,
        metavar="DIR",
        help="directories of sweeps, or tables of runs (.csv, .parquet)",
    )
    parser.add_argument(
        "--flops", type=positive_float, required=True, help="compute budget of the next run"
    )
    add_metric(parser)
    parser.add_argument("--axis", default="flops_model", help="column of compute (%(default)s)")
    parser.add_argument("--device", help="h200, h100, a100, tpu-v5e, ..., cpu (default: the runs')")
    parser.add_argument(
        "--devices", type=positive_int, help="number of devices (default: as the runs)"
    )
    parser.add_argument(
        "--mfu", type=share, help="share of peak FLOP/s reached (default: that of the runs)"
    )
    parser.add_argument(
        "--serve-ms", type=positive_float, help="longest latency of a request, in ms"
    )
    parser.add_argument(
        "--candidates", type=positive_int, default=512, help="candidates of a request (%(default)s)"
    )
    parser.add_argument(
        "--data", type=Path, help="prepared data (default: the directory of the runs)"
    )
    parser.add_argument(
        "--far", action="store_true", help="allow extrapolation far beyond the runs"
    )
    parser.add_argument(
        "--bootstrap", type=count, default=1000, help="bootstrap resamples (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")


def run(args: argparse.Namespace) -> int:
    """Print one plan.

    Raises:
        BadInput: the runs do not determine a plan; the message says why.
    """
    from ligr_jax.scaling.plan import PlanRequest, make_plan, plan_json, text

    lower_is_better = direction_of(args)
    found = read_runs(*args.runs)
    found.require_numbers([args.metric, args.axis])
    for name, why in found.failed:
        _log.warning(f"left out {name}: {why}")
    plan = make_plan(
        found.table,
        PlanRequest(
            flops=args.flops,
            metric=args.metric,
            lower_is_better=lower_is_better,
            axis=args.axis,
            device=args.device,
            devices=args.devices,
            serve_ms=args.serve_ms,
            candidates=args.candidates,
            share=args.mfu,
            data=args.data,
            out=next((path for path in args.runs if path.is_dir()), Path("runs")),
            far=args.far,
            resamples=args.bootstrap,
        ),
    )
    if args.json:
        print_json(plan_json(plan))
    else:
        print(text(plan))
    return 0
