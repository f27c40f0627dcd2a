"""Measure a trained run on a split of its data.

The table has NE, AUC, GAUC, calibration and NDCG of each action, cold-start slices, and the metrics
of the oracle if the data contain true probabilities. The metrics do not depend on the batch size.
An action whose labels in the split are all equal or all unknown has no NE and no AUC; it is left
out of the means, and a line of the output names it. In JSON and in summary.json, a slash in the
name of an action is written as %2F.

--json prints a row for a leaderboard: protocol and digest of the data, model, parameters, FLOPs,
step and version, followed by the metrics (docs/comparing.md). --data can name data that were
prepared later in the same way: their splits and histories are used, and the row has both digests.

examples:
  ligr eval runs/first --split test
  ligr eval runs/first --split validation --json > validation.json
  ligr eval runs/first --split test --data /elsewhere/prepared --batch 8
"""

import argparse
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ligr_jax.commands.arguments import count
from ligr_jax.exit_status import DONE, FAILED

_log = logging.getLogger(__name__)

COLUMNS = ("ne", "auc", "gauc", "ndcg", "calibration", "ece", "rate")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"))
    parser.add_argument(
        "--data",
        type=Path,
        help="prepared data, also other data of the same schema (default: those of the training)",
    )
    parser.add_argument("--batch", type=count, default=0, help="rows per batch")
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON")
    parser.add_argument("--step", type=count, help="step of the checkpoint (default: the newest)")
    parser.add_argument(
        "assignments", nargs="*", metavar="mesh.name=value", help="e.g. mesh.model=4"
    )


def run(args: argparse.Namespace) -> int:
    from ligr_jax.parallel.host import use_all_cores
    from ligr_jax.parallel.processes import is_first, join_processes

    use_all_cores()
    join_processes()
    from ligr_jax.strict_json import print_json
    from ligr_jax.train.evaluation_row import evaluation_row

    numbers = evaluation_row(
        args.run, args.split, args.data, args.batch, args.assignments, step=args.step
    )
    if args.json and is_first():
        print_json(numbers)
    elif is_first():
        print(metrics_table(numbers, args.split))
    if numbers[f"{args.split}/ne"] is None or not math.isfinite(numbers[f"{args.split}/ne"]):
        _log.error(
            f"ligr eval: no action has labels of both kinds in the {args.split} split, so NE and "
            "AUC are not defined; choose another --split, or train with other model.actions"
        )
        return FAILED
    return FAILED if numbers.get("beats_oracle") else DONE


def metrics_table(numbers: Mapping[str, Any], split: str) -> str:
    """Return the metrics of a split as a table, with a line for each action left out."""
    from ligr_jax.config import unescape

    lines = [f"{split}: {numbers[f'{split}/impressions']:,} impressions"]
    lines.append(f"{'':24}" + "".join(f"{c:>12}" for c in COLUMNS))
    actions = [k.split("/")[1] for k in numbers if k.startswith(split) and k.endswith("/gauc")]
    for action in actions:
        for prefix, label in ((split, unescape(action)), (f"oracle/{split}", "  oracle")):
            if f"{prefix}/{action}/ne" in numbers:
                values = (numbers[f"{prefix}/{action}/{c}"] for c in COLUMNS)
                lines.append(f"{label:24}" + "".join(f"{number_words(v):>12}" for v in values))
        for name in ("cold_items", "cold_members"):
            key = f"{split}/{action}/{name}"
            if f"{key}/auc" in numbers:
                count = numbers[f"{key}/impressions"]
                ne, auc = number_words(numbers[f"{key}/ne"]), number_words(numbers[f"{key}/auc"])
                lines.append(f"{'  ' + name:24}{ne:>12}{auc:>12}   ({count:,} impressions)")
    mean = f"{number_words(numbers[f'{split}/ne']):>12}{number_words(numbers[f'{split}/auc']):>12}"
    lines += [
        f"{'mean':24}{mean}",
        *left_out_lines(numbers, split),
        *next_item_lines(numbers, split),
    ]
    lines += split_lines(numbers)
    if numbers.get("leaks"):
        lines.append(
            "trained on actions of their own session (model.mask=causal): reports leave the run "
            "out of laws and comparisons"
        )
    if numbers.get("beats_oracle"):
        lines.append(
            "the model has a lower cross-entropy than the oracle, so labels leak into its inputs"
        )
    return "\n".join(lines)


def split_lines(numbers: Mapping[str, Any]) -> list[str]:
    """Return a line if the splits of the data are parts of each member's history."""
    if not numbers.get("not_split_by_time"):
        return []
    return [
        "not split by time: the last rows of each member are measured, and the model was trained "
        "on later rows of other members"
    ]


def left_out_lines(numbers: Mapping[str, Any], split: str) -> list[str]:
    """Return a line for each action that has no NE and AUC and is left out of the means."""
    from ligr_jax.config import metric_key, split_list

    lines = []
    for action in split_list(numbers.get(f"{split}/left_out", "")):
        rate = numbers[f"{split}/{metric_key(action)}/rate"]
        known = rate is not None and math.isfinite(rate)
        why = f"all its labels are {rate:.0f}" if known else "it has no labels"
        lines.append(f"{action} is left out of the means over actions: {why} in {split}")
    return lines


def next_item_lines(numbers: Mapping[str, Any], split: str) -> list[str]:
    """Return the metrics of the next item, if the model predicts it (`model.next_item`)."""
    prefix = f"{split}/next_item/"
    found = {k.removeprefix(prefix): v for k, v in numbers.items() if k.startswith(prefix)}
    if not found:
        return []
    counts = (
        f"{found['targets']:,} targets among {found['candidates']:,} items, "
        f"{found['tied']:.1%} with ties, {found['without_history']:,} left out without history"
    )
    if "without_item" in found:
        counts += f", {found['without_item']:,} without an item"
    metrics = [f"{k} {number_words(v)}" for k, v in found.items() if "@" in k]
    return [f"next item: {'  '.join(metrics)}", f"  {counts}"]


def number_words(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.4f}"
