"""The shape to train next for a compute budget, from finished runs: sizes, data, rates, cost.

Where the runs hold several budgets with several shapes each, a dimension is what is best for the
budget (iso-FLOP); else it grows as along the frontier of the best runs. Prints the plan and the
`ligr train` command for it.

examples:
  ligr plan --runs runs/ladder --flops 1e14
  ligr plan --runs runs/ladder runs/isoflop --flops 1e18 --device h200 --devices 8 --serve-ms 10
  ligr plan --runs runs/ladder --flops 1e14 --axis flops_paper --json > plan.json
  ligr plan --runs others.csv --flops 1e20 --metric loss --axis flops
"""

import argparse
import logging
from pathlib import Path

from ligr_jax.commands.arguments import count, positive_float, positive_int, share
from ligr_jax.commands.fit import LOWER
from ligr_jax.scaling.runs import read_runs
from ligr_jax.strict_json import print_json

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runs",
        nargs="+",
        required=True,
        type=Path,
        metavar="DIR",
        help="sweep directories, or runs as .csv or .parquet",
    )
    parser.add_argument(
        "--flops", type=positive_float, required=True, help="budget of the next run"
    )
    parser.add_argument("--metric", default="validation/ne", help="column (%(default)s)")
    parser.add_argument("--axis", default="flops_model", help="compute column (%(default)s)")
    parser.add_argument("--device", help="h200, h100, a100, tpu-v5e, ..., cpu (default: the runs')")
    parser.add_argument("--devices", type=positive_int, help="how many (default: as the runs)")
    parser.add_argument("--mfu", type=share, help="share of the peak reached (default: measured)")
    parser.add_argument("--serve-ms", type=positive_float, help="longest a request may take")
    parser.add_argument(
        "--candidates", type=positive_int, default=512, help="of a request (%(default)s)"
    )
    parser.add_argument("--data", type=Path, help="prepared data (default: where the runs had it)")
    parser.add_argument("--far", action="store_true", help="answer beyond the runs' reach too")
    parser.add_argument("--bootstrap", type=count, default=1000, help="resamples (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    """Prints one plan; raises BadInput with the reason where there is none."""
    from ligr_jax.scaling.plan import PlanRequest, make_plan, text, to_json

    found = read_runs(*args.runs)
    for name, why in found.failed:
        _log.warning(f"left out {name}: {why}")
    plan = make_plan(
        found.table,
        PlanRequest(
            flops=args.flops,
            metric=args.metric,
            lower_is_better=args.metric.replace("_", "/").rsplit("/", 1)[-1].lower() in LOWER,
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
        print_json(to_json(plan))
    else:
        print(text(plan))
    return 0
