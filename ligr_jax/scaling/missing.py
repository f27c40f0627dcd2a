"""Why a run has no value of a metric: no labels, divergence, or an empty cell of a table."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ligr_jax.config import join_list, split_list, unescape
from ligr_jax.runs.columns import config_column, is_config_column
from ligr_jax.runs.run_table import RunTable

DIVERGED = "it diverged"
EMPTY = "its cell is empty"


def why_missing(row: Mapping[str, Any], metric: str) -> str:
    """Return why a run has no finite `metric`.

    Args:
        row: row of the run in the table of runs.
        metric: column of the metric, e.g. "validation/ne".
    """
    value = row.get(metric)
    if isinstance(value, float) and math.isinf(value):
        return f"but {value:g}"
    split, *parts = metric.removeprefix("oracle/").split("/")
    left_out = split_list(str(row.get(f"{split}/left_out") or ""))
    actions = row.get(config_column("model.actions"))
    if isinstance(actions, str):
        actions = json.loads(actions)
    mean_of_none = len(parts) == 1 and left_out and set(left_out) >= set(actions or left_out)
    if mean_of_none or (len(parts) > 1 and unescape(parts[0]) in left_out):
        return f"{join_list(left_out)} has no positive or no negative labels in {split}"
    return DIVERGED if any(is_config_column(key) for key in row) else EMPTY


def runs_without_metric(table: RunTable, metric: str) -> dict[str, Sequence[str]]:
    """Return the names of the runs without a finite `metric`, by the reason.

    Args:
        table: table of runs.
        metric: column of the metric, e.g. "validation/ne".
    """
    by_reason: dict[str, list[str]] = {}
    without = table.where(~np.isfinite(table.numbers(metric)))
    for name, row in zip(without.names, without.rows()):
        by_reason.setdefault(why_missing(row, metric), []).append(name)
    return dict(by_reason)
