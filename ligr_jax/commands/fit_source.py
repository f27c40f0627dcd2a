"""Where `ligr fit` reads runs: a path, a project of W&B with `--filters`, or by `--mapping`."""

import argparse
import json
from pathlib import Path

from ligr_jax.commands.arguments import DEFAULT_METRIC
from ligr_jax.data.schema import BadInput
from ligr_jax.runs.mapping import RunMapping, read_mapped, read_mapping
from ligr_jax.runs.table import WANDB, Runs, read_runs

# Columns of our own runs, by option.
COLUMNS = {
    "metric": DEFAULT_METRIC,
    "axis": "flops_model",
    "n": "params_dense",
    "d": "tokens",
}


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add the path, `--filters` and `--mapping`."""
    parser.add_argument("path", help="directory of a sweep, or a table of runs (see below)")
    parser.add_argument(
        "--filters", metavar="JSON", help="which runs of wandb:ENTITY/PROJECT are read (all)"
    )
    parser.add_argument(
        "--mapping", metavar="FILE", help="YAML: where another tool's run directories have what"
    )


def mapping_of(args: argparse.Namespace) -> RunMapping | None:
    """Return the mapping of `--mapping`; set the columns that no option names to its columns."""
    if args.mapping is None:
        return None
    mapping = read_mapping(Path(args.mapping))
    for option, quantity in (("axis", "compute"), ("n", "n"), ("d", "d"), ("metric", "metric")):
        if quantity in mapping.columns and getattr(args, option) == COLUMNS[option]:
            setattr(args, option, mapping.columns[quantity])
    if "loss" in mapping.columns and args.loss is None and args.metric == COLUMNS["metric"]:
        args.loss = mapping.columns["loss"]
    return mapping


def read_source(args: argparse.Namespace, mapping: RunMapping | None) -> Runs:
    """Read the runs.

    Raises:
        BadInput: the runs cannot be read, or an option does not apply to the path.
    """
    if mapping is not None:
        if args.filters is not None or not Path(args.path).is_dir():
            raise BadInput(f"--mapping {args.mapping} needs a directory, and not {args.path}")
        return read_mapped(Path(args.path), mapping)
    if args.filters is None:
        return read_runs(args.path)
    if not args.path.startswith(WANDB):
        raise BadInput(f"--filters applies to {WANDB}ENTITY/PROJECT only, and not to {args.path}")
    try:
        filters = json.loads(args.filters)
    except ValueError as e:
        raise BadInput(f"--filters {args.filters}: not JSON ({e})") from None
    if not isinstance(filters, dict):
        raise BadInput(f'--filters {args.filters}: not an object, e.g. \'{{"state": "finished"}}\'')
    return read_runs(args.path, filters=filters)
